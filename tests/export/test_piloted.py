"""Rollouts in data sets: who drove at every row, and no row at which nobody did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from dexrun.export.errors import ExportError
from runtime.pilot import Pilot
from tests.export.synthetic import Made, Truth

Run = Callable[..., tuple[Path, list[Truth]]]
Export = Callable[..., tuple[Path, object]]


def taken_over(tick: int) -> int:
    """Before the policy's first chunk, and while the leader comes, nobody drives."""
    if tick < 2 or 9 <= tick < 14:
        return Pilot.NOBODY
    return Pilot.POLICY if tick < 9 else Pilot.PERSON


EXPECTED = [False] * 7 + [True] * 6
"""Ticks 2 to 8 are the policy's, 14 to 19 the person's."""


def test_rows_say_who_drove_and_pauses_are_left_out(run: Run, exported: Export) -> None:
    folder, truths = run(Made(seconds=0.65, pilots=taken_over))
    target, _ = exported(folder, "lerobot-v3")
    features = json.loads((target / "meta" / "info.json").read_text())["features"]
    assert features["intervention"] == {"dtype": "bool", "shape": [1], "names": None}
    table = pq.read_table(target / "data/chunk-000/file-000.parquet")
    assert table.column("intervention").to_pylist() == EXPECTED
    assert table.column("frame_index").to_pylist() == list(range(len(EXPECTED)))
    positions = np.stack(truths[0].values["position"][::3])[[*range(2, 9), *range(14, 20)]]
    state = np.array(table.column("observation.state").to_pylist())[:, 5]
    np.testing.assert_allclose(state, positions[:, 5] * 100, atol=1e-3)
    old, _ = exported(folder, "lerobot-v2.1", "v21")
    table = pq.read_table(old / "data/chunk-000/episode_000000.parquet")
    assert table.column("intervention").to_pylist() == EXPECTED
    hdf5, _ = exported(folder, "act-hdf5", "hdf5")
    with h5py.File(hdf5 / "episode_0.hdf5") as root:
        assert root["intervention"][:].tolist() == EXPECTED
        assert len(root["action"]) == len(EXPECTED)


def test_demonstrations_beside_rollouts_are_a_persons(run: Run, exported: Export) -> None:
    folder, _ = run(Made(seconds=0.3), Made(seconds=0.3, pilots=lambda tick: Pilot.POLICY, seed=1))
    target, _ = exported(folder, "lerobot-v3")
    table = pq.read_table(target / "data/chunk-000/file-000.parquet")
    marks = np.array(table.column("intervention").to_pylist())
    episodes = np.array(table.column("episode_index").to_pylist())
    assert marks[episodes == 0].all()
    assert not marks[episodes == 1].any()


def test_teleoperation_alone_is_not_marked(run: Run, exported: Export) -> None:
    folder, _ = run(Made(seconds=0.3))
    target, _ = exported(folder, "lerobot-v3")
    assert "intervention" not in json.loads((target / "meta" / "info.json").read_text())["features"]


def test_an_episode_that_nobody_drove_is_named(run: Run, exported: Export) -> None:
    folder, _ = run(Made(seconds=0.3, pilots=lambda tick: Pilot.NOBODY))
    with pytest.raises(ExportError, match="neither the policy nor a person drove"):
        exported(folder, "act-hdf5")
