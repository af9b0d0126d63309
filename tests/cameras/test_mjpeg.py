"""The OpenCV driver against the MJPEG server, over real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from drivers.opencv_camera.capture import why_not
from drivers.opencv_camera.config import OpenCvConfig
from drivers.opencv_camera.driver import OpenCvCamera
from drivers.opencv_camera.emulator import MjpegEmulator
from runtime.clock import RealClock
from runtime.interfaces import CameraDriver
from runtime.messages import DeviceError
from runtime.stepped import SteppedClock
from tests.cameras.worlds import HEIGHT, PERIOD_NS, WIDTH, MjpegWorld, picture, same


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def world(clock: SteppedClock) -> Iterator[MjpegWorld]:
    world = MjpegWorld(clock)
    yield world
    world.close()


@pytest.fixture
def camera(world: MjpegWorld, clock: SteppedClock) -> Iterator[OpenCvCamera]:
    camera = OpenCvCamera("wrist", config(world.emulator.url), clock)
    yield camera
    camera.close()


def config(source: int | str, **options: object) -> OpenCvConfig:
    return OpenCvConfig(**{"source": source, "width": WIDTH, "height": HEIGHT, **options})


def poll_often(camera: OpenCvCamera) -> None:
    for _ in range(10):
        camera.poll()


def test_every_frame_arrives_before_the_next_one_is_published(camera, world, clock):
    assert isinstance(camera, CameraDriver)
    camera.open()
    for k in range(1, 21):
        camera.poll()
        sample = camera.frames.newest()
        assert (world.published, sample.index, sample.stamp_ns) == (k, k - 1, k * PERIOD_NS)
        assert same(sample["color"], picture(k))
    assert camera.statistics() == {"torn": 0, "stale": 0}


def test_colours_are_rgb(camera):
    camera.open()
    camera.poll()
    red = camera.frames.newest()["color"][:, : WIDTH // 2 - 2].reshape(-1, 3).mean(axis=0)
    assert red == pytest.approx((200, 30, 40), abs=4)


def test_latency_is_taken_off_the_stamp(world, clock):
    camera = OpenCvCamera("wrist", config(world.emulator.url, latency_s=0.01), clock)
    camera.open()
    camera.poll()
    assert camera.frames.newest_stamp_ns() == PERIOD_NS - 10_000_000
    camera.close()


def test_intrinsics_are_configured_or_unknown(clock):
    assert np.isnan(OpenCvCamera("wrist", config(0), clock).info.intrinsics.fx)
    known = {"fx_px": 60, "fy_px": 61, "cx_px": 32, "cy_px": 24, "distortion": (0.1, 0, 0, 0, 0)}
    extrinsics = {"position_m": (0, 0, 1), "look_at_m": (1, 0, 0)}
    info = OpenCvCamera("wrist", config(0, calibration=known, extrinsics=extrinsics), clock).info
    assert (info.intrinsics.fx, info.intrinsics.coefficients[0]) == (60, 0.1)
    assert info.base_from_camera[:3, 3] == pytest.approx([0, 0, 1])


# --- what is not there


def test_a_port_that_is_gone_is_said_so(world, clock):
    url = world.emulator.url
    world.emulator.inject("gone")
    camera = OpenCvCamera("wrist", config(url), clock)
    with pytest.raises(DeviceError, match=rf"wrist at {url}: not_found: .*Connection refused"):
        camera.open()


def test_credentials_of_a_source_are_not_said(world, clock):
    url = world.emulator.url
    world.emulator.inject("gone")
    camera = OpenCvCamera("wrist", config(url.replace("://", "://admin:hunter2@")), clock)
    with pytest.raises(DeviceError, match="not_found") as caught:
        camera.open()
    assert caught.value.where == url.replace("://", "://***@")
    assert "hunter2" not in str(caught.value)


def test_asking_why_does_not_take_as_long_as_connecting_again(world, clock, monkeypatch):
    asked = []

    def silent(address, timeout_s):
        asked.append(timeout_s)
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", silent)
    world.emulator.inject("gone")
    with pytest.raises(DeviceError, match="not_found: cannot connect: timed out"):
        OpenCvCamera("wrist", config(world.emulator.url, open_timeout_s=3.0, timeout_s=0.15), clock).open()
    assert asked == [0.15]


def test_an_unknown_host_is_said_to_be_unknown(clock, monkeypatch):
    def unknown(*_args, **_more):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for scheme in ("http", "https", "rtsp"):
        made = config(f"{scheme}://no-such-host.invalid/cam/1", open_timeout_s=1.0)
        assert why_not(made) == "host 'no-such-host.invalid' is not known: Name or service not known"


def test_a_proxy_of_the_environment_is_not_asked_for_this_machines_camera(world, clock, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "lab.example")
    with contextlib.closing(OpenCvCamera("wrist", config(world.emulator.url), clock)) as camera:
        camera.open()
    assert os.environ["no_proxy"] == "lab.example,localhost,127.0.0.1,::1"


def test_a_page_without_video_is_said_so(world, clock):
    url = world.emulator.url.replace("/stream", "/nothing")
    with pytest.raises(DeviceError, match="sends no video"):
        OpenCvCamera("wrist", config(url), clock).open()


@pytest.mark.parametrize("source", [63, "/dev/v4l/by-id/usb-nobody-video-index0"])
def test_a_device_that_is_not_there_names_those_that_are(source, clock):
    with pytest.raises(DeviceError, match="not_found: no video device there; there are: "):
        OpenCvCamera("wrist", config(source), clock).open()


def test_another_size_than_configured_is_refused(world, clock):
    camera = OpenCvCamera("wrist", config(world.emulator.url, width=640, height=480), clock)
    with pytest.raises(DeviceError, match="not_granted: asked for 640x480, the camera gives 64x48"):
        camera.open()


def test_a_size_that_changes_is_refused(camera, world):
    camera.open()
    world.running = False
    world.clock.detach()
    world.emulator.publish(np.zeros((24, 32, 3), np.uint8), 1)
    camera._wire.credit(1)
    with pytest.raises(DeviceError, match="asked for 64x48, the camera gives 32x24"):
        camera.poll()
    assert camera.frames.published == 0


# --- faults


def test_a_frozen_camera_times_out_and_comes_back(camera, world, clock):
    camera.open()
    camera.poll()
    last = clock.now_ns()
    world.emulator.inject("freeze")
    with pytest.raises(DeviceError, match="timeout") as caught:
        poll_often(camera)
    assert clock.now_ns() == last + 200_000_000
    assert caught.value.last_good_ns == last
    camera.close()
    camera.open()  # it still answers, with its last picture; that one is not published
    with pytest.raises(DeviceError, match="timeout"):
        poll_often(camera)
    camera.close()
    world.emulator.inject("back")
    camera.open()
    camera.poll()
    assert camera.frames.newest_stamp_ns() == clock.now_ns()
    assert camera.frames.published == 2


def test_gone_and_back(camera, world, clock):
    camera.open()
    camera.poll()
    world.emulator.inject("gone")
    with pytest.raises(DeviceError, match="timeout"):
        poll_often(camera)
    camera.close()
    with pytest.raises(DeviceError, match="not_found"):
        camera.open()
    clock.wait_until_ns(clock.now_ns() + 1_000_000_000)
    world.emulator.inject("back")
    camera.open()
    for _ in range(3):
        camera.poll()
        sample = camera.frames.newest()
        assert sample.stamp_ns == clock.now_ns() == world.published * PERIOD_NS
        assert same(sample["color"], picture(world.published))


@pytest.mark.parametrize("damage", ["torn", "garbage"])
def test_a_damaged_frame_is_left_out(camera, world, damage):
    camera.open()
    camera.poll()
    world.emulator.inject(damage)
    camera.poll()
    assert camera.frames.published == 1
    camera.poll()
    sample = camera.frames.newest()
    assert (sample.index, sample.stamp_ns) == (1, 3 * PERIOD_NS)
    assert same(sample["color"], picture(3))
    assert camera.statistics() == {"torn": 1, "stale": 0}


def test_frames_published_between_connections_do_not_count(camera, world, clock):
    camera.open()
    camera.poll()
    camera.close()
    clock.wait_until_ns(10 * PERIOD_NS)
    camera.open()
    camera.poll()
    sample = camera.frames.newest()
    assert (sample.index, sample.stamp_ns) == (1, 11 * PERIOD_NS)
    assert same(sample["color"], picture(11))


def test_a_camera_that_is_closed_says_so(camera):
    camera._deadline_ns = 10**12
    camera._wire.credit(1)
    with pytest.raises(DeviceError, match="gone: the connection ended"):
        camera.poll()


def test_on_the_real_clock_a_lost_connection_is_noticed_at_once_and_a_frozen_one_in_time():
    emulator = MjpegEmulator(WIDTH, HEIGHT)
    patient = config(emulator.url).model_copy(update={"timeout_s": 30.0, "open_timeout_s": 30.0})
    camera = OpenCvCamera("wrist", patient, RealClock())
    camera.open()
    emulator.publish(picture(1), 1)
    camera.poll()
    emulator.inject("gone")
    with pytest.raises(DeviceError, match="gone: the connection ended"):
        camera.poll()
    emulator.inject("back")
    camera.open()
    emulator.publish(picture(2), 2)
    camera.poll()
    assert same(camera.frames.newest()["color"], picture(2))
    camera.close()
    camera.close()
    impatient = OpenCvCamera("wrist", config(emulator.url, open_timeout_s=30.0), RealClock())
    impatient.open()
    emulator.inject("freeze")
    with pytest.raises(DeviceError, match="timeout"):
        poll_often(impatient)
    impatient.close()
    emulator.close()


# --- the server alone


def test_a_client_that_does_not_read_costs_the_others_nothing(world):
    world.clock.detach()
    emulator = world.emulator
    port = int(emulator.url.split(":")[2].split("/")[0])
    noise = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), dtype=np.uint8)
    with socket.create_connection(("127.0.0.1", port)) as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.sendall(b"GET /stream HTTP/1.0\r\n\r\n")
        assert lazy.recv(12) == b"HTTP/1.0 200"
        taken = [emulator.publish(noise, k) for k in range(40)]
        assert taken[0] == 1
        assert taken[-1] == 0  # its queue is full; publishing goes on
        assert emulator.statistics()["skipped"] == taken.count(0)


def test_a_client_that_hangs_up_is_not_counted_any_more(world):
    world.clock.detach()
    port = int(world.emulator.url.split(":")[2].split("/")[0])
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.0 200"
            assert world.emulator.publish(picture(1), 1) == 1
        assert world.emulator.publish(picture(1), 1) == 0
    assert world.emulator.clients == 0


def test_parts_say_their_length_and_stamp(world):
    world.clock.detach()
    port = int(world.emulator.url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /stream HTTP/1.0\r\n\r\n")
        stream = client.makefile("rb")
        head = b"".join(iter(stream.readline, b"\r\n"))
        assert b"multipart/x-mixed-replace; boundary=frame" in head
        world.emulator.publish(picture(1), 12_000_000_345)
        for stamp in (b"0.000000000", b"12.000000345"):
            lines = b"".join(iter(stream.readline, b"\r\n")).splitlines()
            assert lines[0] == b"--frame"
            headers = dict(line.split(b": ") for line in lines[1:])
            assert headers[b"Content-Type"] == b"image/jpeg"
            assert headers[b"X-Timestamp"] == stamp
            jpeg = stream.read(int(headers[b"Content-Length"]))
            assert jpeg.startswith(b"\xff\xd8")
            assert jpeg.rstrip(b"\0").endswith(b"\xff\xd9")
            assert stream.readline() == b"\r\n"
        stream.close()


def test_a_port_in_use_is_an_error_and_leaves_nothing_behind(world):
    world.clock.detach()
    port = int(world.emulator.url.split(":")[2].split("/")[0])
    with pytest.raises(OSError, match="in use"):
        MjpegEmulator(WIDTH, HEIGHT, port=port)


def test_an_unknown_fault_is_refused(world):
    with pytest.raises(ValueError, match="'melt' is not one of"):
        world.emulator.inject("melt")
