"""The camera of ``examples/``: what it shows is a function of its table and the clock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime import NS_PER_S, CameraDriver, CameraTable, DeviceContext, SteppedClock

pytestmark = pytest.mark.usefixtures("parts")


def opened(clock: SteppedClock, **keys: Any) -> CameraDriver:
    table = CameraTable.of("synthetic").model_validate({"driver": "synthetic", **keys})
    camera = table.build(DeviceContext("side", clock))
    assert isinstance(camera, CameraDriver)
    camera.open()
    return camera


def stamp_of(picture: np.ndarray[Any, Any]) -> int:
    return int.from_bytes(np.packbits(picture[0, :64, 0] > 127).tobytes(), "big")


def pictures(**keys: Any) -> list[tuple[int, np.ndarray[Any, Any]]]:
    """All that a second shows."""
    with SteppedClock() as clock:
        camera = opened(clock, width=80, height=60, fps=10, **keys)
        reader = camera.frames.reader("oldest")
        found = []
        while clock.now_ns() < NS_PER_S:
            if camera.poll():
                sample = reader.next()
                assert sample is not None
                found.append((sample.stamp_ns, sample["color"].copy()))
        return found


def test_pictures_come_at_their_rate_and_show_their_stamps() -> None:
    seen = pictures()
    assert [stamp for stamp, _ in seen] == [number * NS_PER_S // 10 for number in range(11)]
    assert [stamp_of(picture) for _, picture in seen] == [stamp for stamp, _ in seen]


def test_the_square_goes_round_over_a_pattern_of_its_seed() -> None:
    one, again, other = pictures(seed=1), pictures(seed=1), pictures(seed=2)
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(one, again, strict=True))
    assert not np.array_equal(one[0][1], other[0][1])
    places = [np.argwhere((picture == (200, 30, 30)).all(axis=2)).mean(axis=0) for _, picture in one]
    assert places[0] == pytest.approx([29.5, 59.5])  # to the right, and a quarter later below
    assert places[10] == pytest.approx([44.5, 39.5], abs=1)


def test_a_slow_camera_can_still_be_stopped() -> None:
    with SteppedClock() as clock:
        camera = opened(clock, fps=1)
        polls = [(camera.poll(), clock.now_ns() * 10 // NS_PER_S) for _ in range(4)]
    assert polls == [(True, 0), (False, 2), (False, 4), (False, 6)]
