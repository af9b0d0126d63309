"""The RealSense driver against the software device, frames sent over shared memory."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import numpy as np
import pyrealsense2 as rs
import pytest

from drivers.realsense import driver
from drivers.realsense.config import RealSenseConfig
from drivers.realsense.device import Pairing
from drivers.realsense.driver import RealSenseCamera
from drivers.realsense.emulator import RealSenseEmulator
from drivers.realsense.stamps import FrameStamps
from runtime.clock import RealClock
from runtime.geometry import deproject
from runtime.interfaces import CameraDriver
from runtime.messages import CameraInfo, DeviceError, Intrinsics
from runtime.ring import Ring
from runtime.stepped import SteppedClock
from tests.cameras.worlds import HEIGHT, PERIOD_NS, PINHOLE, START_NS, WIDTH, RealSenseWorld


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock(START_NS)


@pytest.fixture
def world(clock: SteppedClock) -> Iterator[RealSenseWorld]:
    world = RealSenseWorld(clock)
    yield world
    world.close()


@pytest.fixture
def camera(world: RealSenseWorld, clock: SteppedClock) -> Iterator[RealSenseCamera]:
    camera = make(world, clock)
    yield camera
    camera.close()


def make(world: RealSenseWorld, clock: SteppedClock, **options: object) -> RealSenseCamera:
    config = RealSenseConfig(**{"serial": "S1", "width": WIDTH, "height": HEIGHT, **options})
    return RealSenseCamera("head", config, clock, context=world.emulator.context)


def poll_often(camera: RealSenseCamera) -> None:
    for _ in range(10):
        camera.poll()


def poll_long(camera: RealSenseCamera) -> None:
    for _ in range(300):
        camera.poll()


def test_pairs_arrive_whole_with_their_exact_stamp(camera, world, clock):
    assert isinstance(camera, CameraDriver)
    camera.open()
    for k in range(1, 9):
        camera.poll()
        sample = camera.frames.newest()
        assert sample.stamp_ns == START_NS + k * PERIOD_NS == clock.now_ns()
        color, depth = world.sent[sample.stamp_ns]
        assert np.array_equal(sample["color"], color)
        assert np.array_equal(sample["depth"], depth)
    assert camera.frames.published == 8
    assert camera.statistics() == {"unpaired": 0}


def test_calibration_is_the_device_s_own(camera):
    assert np.isnan(camera.info.intrinsics.fx)
    camera.open()
    assert camera.info.intrinsics == PINHOLE
    assert camera.info.depth_scale_m == 0.0001  # as a D405, ten times finer than a D435
    assert camera.info.base_from_camera is None


@pytest.mark.parametrize("scale_m", [0.001, 0.0001, 0.00025])
def test_the_scale_is_read_from_the_device_and_never_assumed(clock, scale_m):
    world = RealSenseWorld(clock, scale_m)
    try:
        camera = make(world, clock)
        camera.open()
        camera.poll()
        sample = camera.frames.newest()
        points = deproject(sample["depth"], camera.info.intrinsics, camera.info.depth_scale_m)
        assert camera.info.depth_scale_m == scale_m
        assert points[:, 2] == pytest.approx(world.sent[sample.stamp_ns][1].max() * scale_m)
        camera.close()
    finally:
        world.close()


def test_extrinsics_come_from_the_configuration(world, clock):
    camera = make(world, clock, extrinsics={"position_m": (0.1, 0.0, 0.55), "look_at_m": (0.25, 0.0, 0.0)})
    assert camera.info.base_from_camera[:3, 3] == pytest.approx([0.1, 0.0, 0.55])
    camera.open()
    assert camera.info.base_from_camera is not None
    camera.close()


def test_depth_is_seen_from_the_colour_camera(clock):
    shift = np.eye(4)
    shift[0, 3] = 0.05  # the depth camera sits 5 cm to the left of the colour camera
    world = RealSenseWorld(clock, 0.0001, color_from_depth=shift)
    try:
        camera = make(world, clock)
        camera.open()
        camera.poll()
        sample = camera.frames.newest()
        depth_m = world.sent[sample.stamp_ns][1].max() * 0.0001
        columns = round(60.0 * 0.05 / depth_m)  # disparity of a plane at that distance
        seen = sample["depth"][20]
        assert not seen[: columns - 1].any()  # the colour camera sees what the depth camera does not
        assert (seen[columns + 1 :] == world.sent[sample.stamp_ns][1].max()).all()
        assert not sample["depth"][:9].any()  # holes stay holes
        camera.close()
        raw = make(world, clock, align=False)
        raw.open()
        raw.poll()
        sample = raw.frames.newest()
        assert np.array_equal(sample["depth"], world.sent[sample.stamp_ns][1])
        raw.close()
    finally:
        world.close()


def test_depth_may_have_its_own_size(clock):
    small = Intrinsics(32, 24, 30.0, 30.0, 16.0, 12.0)
    ring = Ring.create_shared({"color": ((48, 64, 3), "uint8"), "depth": ((24, 32), "uint16")}, 4)
    emulator = RealSenseEmulator(
        ring.name, None, CameraInfo("head", PINHOLE, 0.001), serial="S1", depth_intrinsics=small
    )
    options = {"serial": "S1", "width": 64, "height": 48, "depth_width": 32, "depth_height": 24}
    camera = RealSenseCamera("head", RealSenseConfig(**options), RealClock(), emulator.context)
    camera.open()
    ring.push(1_000_000, color=7, depth=500)
    assert emulator.deliver(1) == 1
    camera.poll()
    sample = camera.frames.newest()
    assert sample["depth"].shape == (48, 64)
    assert (sample["depth"][2:-2, 2:-2] == 500).all()
    camera.close()
    emulator.close()
    ring.close()
    ring.unlink()


def test_colour_as_the_camera_sends_it_is_converted_here(clock):
    world = RealSenseWorld(clock, color_format="yuyv")
    try:
        camera = make(world, clock, color_format="yuyv")
        camera.open()
        ramp = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        ramp[..., 0], ramp[..., 1], ramp[..., 2] = 200, np.arange(HEIGHT)[:, None] * 4, 60
        clock.detach()
        world.ring.push(1, color=ramp, depth=5000)
        camera._wire.credit(world.emulator.deliver(1))
        camera.poll()
        sample = camera.frames.newest()
        assert np.abs(sample["color"].astype(int) - ramp).max() <= 4
        camera.close()
    finally:
        world.close()


def test_both_streams_may_come_from_one_sensor(clock):
    world = RealSenseWorld(clock, one_sensor=True)
    try:
        camera = make(world, clock)
        for _ in range(2):
            camera.open()
            camera.poll()
            sample = camera.frames.newest()
            assert np.array_equal(sample["color"], world.sent[sample.stamp_ns][0])
            assert np.array_equal(sample["depth"], world.sent[sample.stamp_ns][1])
            camera.close()
    finally:
        world.close()


# --- what is not there


def test_a_serial_that_is_not_there_names_those_that_are(world, clock):
    camera = make(world, clock, serial="999")
    with pytest.raises(DeviceError, match=r"head at 999: not_found: .* there are: S1") as caught:
        camera.open()
    assert caught.value.kind == "not_found"
    world.emulator.inject("gone")
    with pytest.raises(DeviceError, match="no RealSense is connected"):
        camera.open()
    camera.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"width": 1280, "height": 720},
            r"no color stream 1280x720 rgb8 at 30 fps; there are: 64x48 rgb8 at 30",
        ),
        ({"fps": 60}, "no color stream 64x48 rgb8 at 60 fps"),
        ({"depth_width": 32}, r"no depth stream 32x48 z16 .* there are: 64x48 z16 at 30"),
        ({"color_format": "yuyv"}, "no color stream 64x48 yuyv"),
        ({"depth_units_m": 0.001}, "depth_units is 0.0001 and fixed"),
        ({"laser_power_mw": 150}, "no option laser_power"),
    ],
)
def test_a_stream_or_option_that_is_not_there(world, clock, options, says):
    camera = make(world, clock, **options)
    with pytest.raises(DeviceError, match=says):
        camera.open()
    camera.close()


def test_units_that_are_already_set_are_no_error(world, clock):
    camera = make(world, clock, depth_units_m=0.0001)
    camera.open()
    assert camera.info.depth_scale_m == pytest.approx(0.0001)
    camera.close()


# --- faults


def test_a_frozen_camera_times_out_after_200_ms(camera, world, clock):
    camera.open()
    camera.poll()
    last = clock.now_ns()
    world.emulator.inject("freeze")
    with pytest.raises(DeviceError, match="head at S1: timeout") as caught:
        poll_often(camera)
    assert clock.now_ns() == last + 200_000_000
    assert caught.value.last_good_ns == last
    assert camera.frames.published == 1
    world.emulator.inject("back")
    camera.poll()
    assert camera.frames.newest_stamp_ns() == clock.now_ns()


def test_gone_and_back_under_the_same_serial_number(camera, world, clock):
    camera.open()
    camera.poll()
    world.emulator.inject("gone")
    with pytest.raises(DeviceError, match="timeout"):
        poll_often(camera)
    with pytest.raises(DeviceError, match="not_found"):
        camera.open()
    clock.wait_until_ns(clock.now_ns() + 500_000_000)
    world.emulator.inject("back")
    camera.open()
    for _ in range(3):
        camera.poll()
        sample = camera.frames.newest()
        assert sample.stamp_ns == clock.now_ns()
        assert np.array_equal(sample["color"], world.sent[sample.stamp_ns][0])
    assert camera.frames.published == 4


def test_colour_without_depth_is_dropped_and_the_next_pair_is_whole(camera, world, clock):
    camera.open()
    camera.poll()
    world.emulator.inject("torn")
    camera.poll()
    assert camera.frames.published == 1
    camera.poll()
    sample = camera.frames.newest()
    assert sample.index == 1
    assert sample.stamp_ns == START_NS + 3 * PERIOD_NS
    assert np.array_equal(sample["depth"], world.sent[sample.stamp_ns][1])
    assert camera.statistics() == {"unpaired": 1}


def test_frames_sent_before_opening_do_not_count(camera, world, clock):
    clock.wait_until_ns(START_NS + 10 * PERIOD_NS)
    camera.open()
    camera.poll()
    assert camera.frames.newest_stamp_ns() == START_NS + 11 * PERIOD_NS
    camera.close()
    clock.wait_until_ns(START_NS + 20 * PERIOD_NS)
    camera.open()
    camera.poll()
    assert camera.frames.newest_stamp_ns() == START_NS + 21 * PERIOD_NS


@pytest.mark.parametrize(
    ("color", "depth", "says"),
    [
        ((24, 32), (HEIGHT, WIDTH), "asked for 64x48 colour, the camera gives 32x24"),
        ((1, WIDTH), (HEIGHT, WIDTH), "asked for 64x48 colour, the camera gives 64x1"),
        ((HEIGHT, WIDTH), (HEIGHT, 1), "asked for 64x48 depth, the camera gives 1x48"),
    ],
)
def test_a_picture_of_another_size_is_refused_and_not_stretched(camera, color, depth, says):
    camera.open()
    camera._aligning = False
    pair = [_Picture(np.zeros((*color, 3), np.uint8)), _Picture(np.zeros(depth, np.uint16))]
    with pytest.raises(DeviceError, match=says) as caught:
        camera._publish(*pair)
    assert caught.value.kind == "not_granted"
    assert camera.frames.published == 0


def test_an_unknown_fault_is_refused(world):
    with pytest.raises(ValueError, match="'melt' is not one of freeze, gone, back, torn"):
        world.emulator.inject("melt")


# --- the doorbell


def test_the_doorbell_wakes_the_emulator():
    ring = Ring.create_shared({"color": ((48, 64, 3), "uint8"), "depth": ((48, 64), "uint16")}, 4)
    out, bell = os.pipe()
    emulator = RealSenseEmulator(ring.name, out, CameraInfo("head", PINHOLE, 0.001), serial="S1")
    config = RealSenseConfig(serial="S1", width=WIDTH, height=HEIGHT)
    patient = config.model_copy(update={"timeout_s": 30.0, "start_timeout_s": 30.0})
    camera = RealSenseCamera("head", patient, RealClock(), emulator.context)
    camera.open()
    for k in range(1, 6):
        ring.push(k * 1_000_000_007, color=k, depth=k)
        os.write(bell, b"!")
        camera.poll()
        sample = camera.frames.newest()
        assert (sample.index, sample.stamp_ns) == (k - 1, k * 1_000_000_007)
        assert (sample["depth"] == k).all()
    assert emulator.deliver(5) == 5
    os.close(bell)  # the other process ended: the camera falls silent
    camera.close()
    impatient = config.model_copy(update={"start_timeout_s": 0.2})
    camera = RealSenseCamera("head", impatient, RealClock(), emulator.context)
    camera.open()
    with pytest.raises(DeviceError, match="timeout"):
        poll_often(camera)
    camera.close()
    emulator.close()
    emulator.close()
    ring.close()
    ring.unlink()


def test_the_doorbell_may_be_a_socket_s_path(tmp_path):
    ring = Ring.create_shared({"color": ((48, 64, 3), "uint8"), "depth": ((48, 64), "uint16")}, 4)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bell"))
        listener.listen(1)
        emulator = RealSenseEmulator(ring.name, str(tmp_path / "bell"), CameraInfo("head", PINHOLE, 0.001))
        bell, _ = listener.accept()
    with bell:
        ring.push(1, color=1, depth=1)
        bell.send(b"!")
        assert emulator.deliver(1) == 0  # nobody has opened the camera
    emulator.close()
    ring.close()
    ring.unlink()


# --- stamps of real cameras


class _Frame:
    def __init__(self, domain: str, milliseconds: float) -> None:
        self.domain, self.milliseconds = domain, milliseconds

    def get_timestamp(self) -> float:
        return self.milliseconds

    def get_frame_timestamp_domain(self) -> object:
        return getattr(rs.timestamp_domain, self.domain)


class _Picture(_Frame):
    def __init__(self, pixels: np.ndarray) -> None:
        super().__init__("hardware_clock", START_NS / 1e6)
        self.pixels = pixels

    def get_data(self) -> np.ndarray:
        return self.pixels


class _Half(_Frame):
    def __init__(self, stream: str, milliseconds: float) -> None:
        super().__init__("hardware_clock", milliseconds)
        self.stream = stream

    def get_profile(self) -> _Half:
        return self

    def stream_type(self) -> str:
        return self.stream


@pytest.mark.parametrize("other", ["system_time", "global_time"])
def test_stamps_of_two_clocks_are_never_compared(world, clock, other, monkeypatch):
    monkeypatch.setattr(driver, "_PARTNER_S", 0.005)  # of real time, for each half whose other never comes
    camera = make(world, clock)
    world.emulator.domains["depth"] = other
    camera.open()
    with pytest.raises(DeviceError) as caught:
        poll_long(camera)
    assert caught.value.kind == "timeout"
    assert f"colour is stamped by the clock hardware_clock and depth by {other}" in caught.value.detail
    assert camera.frames.published == 0
    world.emulator.domains["depth"] = "hardware_clock"  # as while a camera's clock is being found out
    camera.poll()
    assert camera.frames.published == 1
    camera.close()


def test_what_is_missing_of_a_pair_is_said(camera, world, clock):
    camera.open()
    world.running = False
    with pytest.raises(DeviceError, match="in time: no picture came"):
        poll_long(camera)
    pairing = Pairing("depth", 10.0)
    pairing.add(_Half("color", 0.0))
    assert pairing.trouble() == "colour came (1 pictures), and no depth"
    pairing.add(_Half("depth", 20.0))
    assert "no two within 10 ms of each other (pair_gap_s)" in pairing.trouble()


class _WallClock(SteppedClock):
    offset_ns = 1_700_000_000_000_000_000

    def wall_ns(self) -> int:
        return self.now_ns() + self.offset_ns


def test_global_time_is_converted_by_its_age():
    clock = _WallClock(50_000_000_000)
    stamps = FrameStamps(clock, "usb-1", 0.001)
    taken = (clock.wall_ns() - 12_000_000) / 1e6
    assert stamps.of(_Frame("global_time", taken)) == pytest.approx(clock.now_ns() - 12_000_000, abs=300)
    assert stamps.of(_Frame("system_time", taken)) == pytest.approx(clock.now_ns() - 13_000_000, abs=300)
    clock.offset_ns += 5_000_000_000  # the wall clock is set
    taken = (clock.wall_ns() - 12_000_000) / 1e6
    assert stamps.of(_Frame("global_time", taken)) == pytest.approx(clock.now_ns() - 12_000_000, abs=300)


def test_a_hardware_clock_is_mapped_by_the_shortest_way():
    clock = SteppedClock(50_000_000_000)
    stamps = FrameStamps(clock, "usb-1", 0.0)
    delays_ms = [20, 7, 15, 5, 30, 6]
    got = []
    for k, delay in enumerate(delays_ms):
        taken_ns = 1_000_000_000 + k * PERIOD_NS
        clock.wait_until_ns(49_000_000_000 + 1_000_000_000 + taken_ns + delay * 1_000_000)
        got.append(stamps.of(_Frame("hardware_clock", taken_ns / 1e6)) - 50_000_000_000 - taken_ns)
    # Stamps settle on the smallest delay seen so far, plus 100 ppm of the time since.
    assert got == pytest.approx([20e6, 7e6, 7e6, 5e6, 5e6, 5e6], abs=2 * 3334)
    assert stamps.of_hardware_ns(0, 99_000_000_000) == 99_000_000_000  # the camera started again


@pytest.mark.parametrize("back_ms", [1, 40, 500, 5000])
def test_a_hardware_clock_that_goes_back_makes_no_old_pictures(back_ms):
    stamps = FrameStamps(SteppedClock(50_000_000_000), "usb-1", 0.0)
    taken, now = 10_000_000_000, 50_000_000_000
    for k in range(10):
        if k == 5:
            taken -= PERIOD_NS + back_ms * 1_000_000
        assert stamps.of_hardware_ns(taken, now) == pytest.approx(now, abs=2 * 3334)
        taken, now = taken + PERIOD_NS, now + PERIOD_NS
