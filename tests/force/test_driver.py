"""The force sensor over a pseudo-terminal, on a stepped clock: exact to the nanosecond."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drivers.force.config import ForceConfig
from drivers.force.driver import SerialForce
from drivers.force.emulator import ForceEmulator
from runtime.interfaces import ForceDriver
from runtime.messages import DeviceError
from runtime.stepped import SteppedClock

MS = 1_000_000
PERIOD = 5 * MS


@dataclass
class Sensor:
    """Sends the force that acts, every 5 ms of simulated time, in bursts of `burst`."""

    emulator: ForceEmulator
    clock: SteppedClock
    force: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    next_ns: int = PERIOD
    burst: int = 1
    held: int = 0

    def next_event_ns(self) -> int:
        return self.next_ns

    def advance(self, to_ns: int) -> Mapping[str, int]:
        sent = 0
        while self.next_ns <= to_ns:
            self.next_ns += PERIOD
            self.held += 1
            if self.held == self.burst:
                sent += sum(self.emulator.send(self.force) for _ in range(self.burst))
                self.held = 0
        return {"force": sent}


@dataclass
class Rig:
    clock: SteppedClock
    sensor: Sensor
    emulator: ForceEmulator
    driver: SerialForce

    def until(self, ms: int) -> None:
        while self.clock.now_ns() < ms * MS:
            self.driver.poll()

    def newest(self) -> list[float]:
        sample = self.driver.samples.newest()
        assert sample is not None
        values: list[float] = sample["force"].tolist()
        return values


@contextmanager
def rig(
    folder: Path, *, emulator: dict[str, Any] | None = None, lister: Any = list, **options: Any
) -> Iterator[Rig]:
    clock = SteppedClock()
    settings = {"port": str(folder / "force"), "tare_samples": 10, **options}
    config = ForceConfig.model_validate(settings)
    device = ForceEmulator(folder / "force", config, **(emulator or {}))
    sensor = Sensor(device, clock)
    driver = SerialForce("force", config, clock, lister)
    clock.attach(sensor)
    try:
        yield Rig(clock, sensor, device, driver)
    finally:
        driver.close()
        device.close()


@pytest.mark.parametrize("form", ["text", "frames"])
def test_newtons_after_the_tare(tmp_path: Path, form: str) -> None:
    with rig(tmp_path, format=form, emulator={"bias_counts": [100, -50, 7]}) as r:
        assert isinstance(r.driver, ForceDriver)
        r.driver.open()
        r.until(55 if form == "text" else 50)  # the line that is under way does not count
        assert r.driver.samples.published == 1
        assert r.newest() == pytest.approx([0, 0, 0])
        r.sensor.force = [1.0, -2.0, 3.5]
        r.until(60)
        assert r.newest() == pytest.approx([1.0, -2.0, 3.5])
        assert r.driver.statistics() == {"tares": 1}


def test_the_calibration_matrix_is_applied(tmp_path: Path) -> None:
    matrix = ((0, 2.0, 0), (1.0, 0.5, 0), (0, 0, 3.0))
    with rig(tmp_path, calibration=matrix, tare_at_start=False, newtons_per_count=0.1) as r:
        r.driver.open()
        r.until(5)
        r.emulator.send_raw(b"1,2,3\n")
        r.clock.wire("force", stream=True).credit(6)  # type: ignore[attr-defined]
        r.driver.poll()
        assert r.newest() == pytest.approx([0.4, 0.2, 0.9])


def test_stamps_are_even_although_samples_come_in_bursts(tmp_path: Path) -> None:
    with rig(tmp_path, tare_at_start=False) as r:
        r.driver.open()
        r.sensor.burst = 4
        r.until(200)
        reader = r.driver.samples.reader("oldest")
        stamps = []
        while (sample := reader.next()) is not None:
            stamps.append(sample.stamp_ns)
        assert stamps == [PERIOD * i for i in range(2, 41)]


@pytest.mark.parametrize("form", ["text", "frames"])
def test_what_waited_in_the_line_while_nobody_read_is_all_there_to_be_recorded(
    tmp_path: Path, form: str
) -> None:
    with rig(tmp_path, tare_at_start=False, format=form) as r:
        r.driver.open()
        r.until(20)
        reader = r.driver.samples.reader()
        r.clock.wait_until_ns(1200 * MS)
        published = r.driver.samples.published
        r.driver.poll()
        while reader.next() is not None:
            pass
        assert r.driver.samples.published - published > 200
        assert reader.lost == 0


def test_taring_again_changes_the_zero_once_it_is_known(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.driver.open()
        r.sensor.force = [0, 0, 1.0]
        r.until(55)
        r.sensor.force = [0, 0, 3.0]
        r.until(65)
        assert r.newest()[2] == pytest.approx(2.0)
        r.driver.tare()
        r.until(110)
        assert r.newest()[2] == pytest.approx(2.0)
        r.until(115)
        assert r.newest()[2] == pytest.approx(0.0)


def test_saturation_is_said_and_counted_and_never_becomes_the_zero(tmp_path: Path) -> None:
    with rig(tmp_path, full_scale_counts=1000) as r:
        r.driver.open()
        r.until(60)
        r.emulator.saturated = True
        r.driver.tare()
        r.until(80)
        sample = r.driver.samples.newest()
        assert sample is not None
        assert sample["saturated"].tolist() == [1, 1, 1]
        assert sample["force"].tolist() == [10, 10, 10]
        assert r.driver.statistics() == {"tares": 1, "saturated": 1}


def test_a_sensor_that_is_saturated_from_the_start_is_a_fault(tmp_path: Path) -> None:
    with rig(tmp_path, full_scale_counts=1000) as r:
        r.emulator.saturated = True
        r.driver.open()
        with pytest.raises(DeviceError, match="no zero could be taken: the sensor is saturated"):
            r.until(1000)
        assert r.clock.now_ns() <= 260 * MS


def test_garbage_and_spoiled_samples_are_counted_and_passed(tmp_path: Path) -> None:
    with rig(tmp_path, format="frames", tare_at_start=False) as r:
        r.driver.open()
        r.until(20)
        r.emulator.corrupt_next(2)
        r.until(40)
        assert r.driver.statistics()["bad_frames"] >= 1
        assert r.driver.samples.published == 6
        r.until(140)
        assert r.driver.samples.newest_stamp_ns() == 140 * MS


def test_a_silent_sensor_is_a_fault_with_the_last_good_stamp(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.driver.open()
        r.until(100)
        r.emulator.silent = True
        with pytest.raises(DeviceError) as caught:
            r.until(1000)
        error = caught.value
        assert (error.kind, error.device, error.last_good_ns) == ("silent", "force", 100 * MS)
        assert 350 * MS <= r.clock.now_ns() <= 450 * MS


def test_a_sensor_far_slower_than_it_says_is_not_called_silent_alone(tmp_path: Path) -> None:
    with board(tmp_path, 10, 400, b"40.00,-15.00,60.00\r\n", tare_at_start=False) as driver:
        error = polled(driver)
        assert error is not None
        assert error.detail == (
            "nothing came for 0.25 s; samples since it was opened: 1; it may have fewer a second than "
            "rate_hz = 100 says"
        )


@dataclass
class Board:
    """Mute for `boot_ms` after its port was opened, then text, `line` every `period_ms`."""

    emulator: ForceEmulator
    clock: SteppedClock
    boot_ms: int
    period_ms: int
    line: bytes
    next_ns: int = 0

    def restart(self) -> None:
        self.next_ns = self.clock.now_ns() + self.boot_ms * MS

    def next_event_ns(self) -> int:
        return self.next_ns

    def advance(self, to_ns: int) -> Mapping[str, int]:
        sent = 0
        while self.next_ns <= to_ns:
            self.next_ns += self.period_ms * MS
            self.emulator.send_raw(self.line)
            sent += len(self.line)
        return {"force": sent}


@contextmanager
def board(folder: Path, boot_ms: int, period_ms: int, line: bytes, **options: Any) -> Iterator[SerialForce]:
    clock = SteppedClock()
    config = ForceConfig.model_validate({"port": str(folder / "force"), "rate_hz": 100, **options})
    device = ForceEmulator(folder / "force", config)
    sends = Board(device, clock, boot_ms, period_ms, line)
    driver = SerialForce("force", config, clock, list)
    clock.attach(sends)
    try:
        driver.open()
        sends.restart()
        yield driver
    finally:
        driver.close()
        device.close()


def polled(driver: SerialForce) -> DeviceError | None:
    """What it says, or nothing once it has delivered ten samples."""
    while driver.samples.published < 10:
        try:
            driver.poll()
        except DeviceError as error:
            return error
    return None


def test_a_board_that_restarts_when_it_is_opened_is_waited_for(tmp_path: Path) -> None:
    with board(tmp_path, 1_600, 10, b"40.00,-15.00,60.00\r\n") as driver:
        assert polled(driver) is None
        assert driver.statistics() == {"tares": 1}


def test_a_slow_sensor_takes_its_zero_in_its_own_time(tmp_path: Path) -> None:
    """Half of the promised rate is told by its rate, and is no failure."""
    with board(tmp_path, 10, 20, b"40.00,-15.00,60.00\r\n") as driver:
        assert polled(driver) is None


@pytest.mark.parametrize(
    ("period_ms", "line", "kind", "detail"),
    [
        (10_000, b"", "silent", "nothing came for 6 s"),
        (
            10,
            b"F_x:40.00,F_y:-15.00,F_z:60.00\r\n",
            "noise",
            "18912 bytes came in 6 s, and none are a line of 3 numbers with ',' between: "
            "'F_x:40.00,F_y:-15.00,F_z:60.00'; look at format, channels and separator, "
            "and at baudrate = 115200",
        ),
        (
            10,
            b"\x96\x02\xf8\x80",
            "noise",
            "2364 bytes came in 6 s, and none are a line of 3 numbers with ',' between: "
            + ascii("\x96\x02\xf8\x80" * 10)
            + "; look at format, channels and separator, and at baudrate = 115200",
        ),
        (
            200,
            b"40.00,-15.00,60.00\r\n",
            "slow",
            "79 of the 80 samples (tare_samples) for a zero came in time: 5 a second, and rate_hz says 100",
        ),
    ],
)
def test_silence_noise_and_slowness_are_told_apart(
    tmp_path: Path, period_ms: int, line: bytes, kind: str, detail: str
) -> None:
    with board(tmp_path, 100, period_ms, line, tare_samples=80) as driver:
        error = polled(driver)
        assert error is not None
        assert (error.kind, error.detail) == (kind, detail)
        assert driver.statistics()[kind] == 1


def test_a_silence_shorter_than_two_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"silence_s = 0.1: at rate_hz = 10 .* give at least 0.15"):
        ForceConfig.model_validate({"port": "/dev/x", "rate_hz": 10, "silence_s": 0.1})
    assert ForceConfig.model_validate({"port": "/dev/x", "rate_hz": 2}).longest_silence_s == 1.25


def test_it_comes_back_after_unplugging_with_its_zero(tmp_path: Path) -> None:
    with rig(tmp_path, emulator={"bias_counts": 300}) as r:
        r.driver.open()
        r.sensor.force = [0, 0, 0]
        r.until(100)
        r.emulator.unplug()
        with pytest.raises(DeviceError) as caught:
            r.until(1000)
        assert caught.value.kind == "gone"
        with pytest.raises(DeviceError) as caught:
            r.driver.open()
        assert caught.value.kind == "not_found"
        r.emulator.plug()
        r.sensor.force = [0, 0, 4.0]  # pressing on something: this must not become the zero
        r.driver.open()
        r.until(400)
        assert r.newest() == pytest.approx([0, 0, 4.0])
        assert r.driver.statistics()["tares"] == 1


def test_it_is_found_again_by_serial_number(tmp_path: Path) -> None:
    ports: list[SimpleNamespace] = []
    with rig(tmp_path, lister=lambda: ports, tare_at_start=False) as r:
        ports.append(SimpleNamespace(device=r.emulator.port, serial_number="F-17"))
        r.driver.open()
        r.until(20)
        r.emulator.unplug()
        with pytest.raises(DeviceError):
            r.until(1000)
        # It comes back under another name.
        other = ForceEmulator(tmp_path / "force2", ForceConfig(port="x"))
        try:
            ports[:] = [SimpleNamespace(device=other.port, serial_number="F-17")]
            r.sensor.emulator = other
            r.driver.open()
            before = r.driver.samples.published
            r.until(math.ceil(r.clock.now_ns() / MS) + 20)
            assert r.driver.samples.published > before
        finally:
            r.driver.close()
            other.close()


def test_what_was_sent_before_the_opening_is_not_a_sample(tmp_path: Path) -> None:
    with rig(tmp_path, tare_at_start=False) as r:
        r.clock.wait_until_ns(100 * MS)
        r.driver.open()
        r.until(115)
        assert r.driver.samples.published == 2
        assert r.driver.samples.newest_stamp_ns() == 115 * MS


def test_half_a_line_is_no_sample_and_enters_no_zero(tmp_path: Path) -> None:
    counts = {"channels": 1, "newtons_per_count": 1.0, "tare_samples": 2}
    with rig(tmp_path, **counts, emulator={"bias_counts": -31234}) as r:
        r.sensor.force = [0.0]

        def joined_in_mid_line() -> None:
            before = r.driver.samples.published
            r.driver.open()
            r.emulator.send_raw(b"34.000\r\n")  # of -31234.000
            r.clock.wire("force", stream=True).credit(8)  # type: ignore[attr-defined]
            r.until(math.ceil(r.clock.now_ns() / MS) + 30)
            assert r.driver.samples.published > before
            for number in range(before, r.driver.samples.published):
                sample = r.driver.samples.read(number)
                assert sample is not None
                assert sample["force"].tolist() == [0.0]

        joined_in_mid_line()
        r.driver.close()
        joined_in_mid_line()
        assert r.driver.statistics() == {"tares": 1}


def test_runs_repeat(tmp_path: Path) -> None:
    def once(folder: Path) -> list[tuple[int, bytes]]:
        folder.mkdir()
        with rig(folder, emulator={"noise_counts": 3.0, "seed": 5}) as r:
            r.driver.open()
            r.until(300)
            reader = r.driver.samples.reader("oldest")
            out = []
            while (sample := reader.next()) is not None:
                out.append((sample.stamp_ns, np.ascontiguousarray(sample["force"]).tobytes()))
            return out

    first = once(tmp_path / "a")
    assert len(first) == 50
    assert once(tmp_path / "b") == first


def test_a_force_is_not_taken_for_the_zero_when_taring_again(tmp_path: Path) -> None:
    with rig(tmp_path, emulator={"bias_counts": [100, -50, 7]}) as r:
        r.driver.open()
        r.until(60)
        for drift, kept, told in ((2.0, 0.0, ""), (4.0, 4.0 - 2.0, "4.0 N off: tare_max_drift_n is 3")):
            r.sensor.force = [0, -drift, 0]
            r.driver.tare()
            r.until(math.ceil(r.clock.now_ns() / MS) + 60)
            assert r.newest() == pytest.approx([0, -kept, 0])
            assert r.driver.tared[-1] == told
        assert r.driver.statistics() == {"tares": 2, "tare_refused": 1}


def test_many_small_drifts_do_not_add_up_to_a_force(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.driver.open()
        r.until(60)
        for step in range(1, 6):
            r.sensor.force = [2.0 * step, 0, 0]
            r.driver.tare()
            r.until(60 + 60 * step)
        assert r.newest() == pytest.approx([8.0, 0, 0])
        assert r.driver.statistics() == {"tares": 2, "tare_refused": 4}


def test_the_zero_stays_when_the_arm_moves_during_the_tare(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.driver.open()
        r.until(60)
        r.sensor.force = [1.0, 0, 0]
        r.driver.tare(lambda: r.clock.now_ns() < 80 * MS)
        r.until(200)
        assert r.newest() == pytest.approx([1.0, 0, 0])
        assert r.driver.tared == ("", "the arm moves")


def test_a_force_that_sets_in_during_the_first_tare_is_not_its_zero(tmp_path: Path) -> None:
    with rig(tmp_path, emulator={"bias_counts": 300}) as r:
        r.driver.open()
        r.until(15)
        r.sensor.force = [60.0, 0, 0]
        r.until(60)
        assert r.newest() == pytest.approx([60.0, 0, 0])
        assert r.driver.statistics() == {"tare_refused": 1}


def test_a_sensor_without_a_tare_at_start_is_zeroed_near_its_own(tmp_path: Path) -> None:
    with rig(tmp_path, tare_at_start=False) as r:
        r.driver.open()
        r.sensor.force = [0, 0, 45.0]
        r.driver.tare()
        r.until(100)
        assert r.newest() == pytest.approx([0, 0, 45.0])
