"""The process behind its client: stepped and real, faults, and a clean end in every case."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from drivers.feetech.driver import FeetechArm
from drivers.force.config import ForceConfig
from drivers.force.driver import SerialForce
from drivers.opencv_camera.config import OpenCvConfig
from drivers.opencv_camera.driver import OpenCvCamera
from drivers.realsense.config import RealSenseConfig
from drivers.realsense.driver import RealSenseCamera
from drivers.world import client as client_module
from drivers.world.client import WorldClient, WorldError
from drivers.world.config import OperatorOptions, WorldConfig
from drivers.world.faults import KINDS, Fault
from runtime.clock import RealClock
from runtime.device import DeviceThread
from runtime.messages import Decision, DeviceError
from runtime.ring import Ring
from runtime.stepped import SteppedClock
from tests.world.rig import MS, SECOND, arm, one_object, small, stepped_world


def _drive(config: WorldConfig, folder: Path, duration_ns: int) -> tuple[str, dict[str, int]]:
    """A follower that does as the leader does, through every real driver; a digest of all they saw."""
    digest, counts = hashlib.sha256(), {}
    with stepped_world(config) as (clock, client):
        addresses = client.addresses
        follower, leader = (arm(name, client, folder, clock) for name in ("follower", "leader"))
        force = SerialForce("force", ForceConfig(port=addresses["force"]), clock)
        head_size = {"width": config.head.width, "height": config.head.height}
        wrist_size = {"width": config.wrist.width, "height": config.wrist.height}
        head = RealSenseCamera(
            "head",
            RealSenseConfig(serial=addresses["head"], **head_size),
            clock,
            context=client.realsense_context,
        )
        wrist = OpenCvCamera("wrist", OpenCvConfig(source=addresses["wrist"], **wrist_size), clock)
        problems: list[DeviceError] = []

        def report(error: DeviceError) -> Decision:
            problems.append(error)
            return Decision.HOLD

        rings = {
            "follower": follower.states,
            "leader": leader.states,
            "force": force.samples,
            "head": head.frames,
            "wrist": wrist.frames,
        }

        async def session() -> None:
            threads = [DeviceThread(d, clock, report) for d in (follower, leader, force, head, wrist)]
            for thread in threads:
                await thread.start()
            tick = clock.now_ns()
            while tick < duration_ns:
                tick += SECOND // 30
                await clock.sleep_until_ns(tick)
                for ring in rings.values():
                    sample = ring.newest()
                    if sample is not None:
                        digest.update(sample.stamp_ns.to_bytes(8, "big"))
                        for value in sample.fields.values():
                            digest.update(value.tobytes())
                hand = leader.states.newest()
                assert hand is not None
                follower.targets.post(clock.now_ns(), position=hand["position"])
            counts.update({name: ring.published for name, ring in rings.items()})
            for thread in reversed(threads):
                await thread.stop()

        clock.run(session)
        assert problems == []
        first, second = follower.states.newest(), leader.states.newest()
        assert first is not None
        assert second is not None
        assert np.abs(first["position"] - second["position"]).max() < 0.15, "the follower follows"
    return digest.hexdigest(), counts


@pytest.mark.slow
def test_two_stepped_runs_through_all_drivers_are_identical(tmp_path: Path) -> None:
    config = small(seed=2, operator=OperatorOptions(enabled=True, start_s=0.5))
    runs = [_drive(config, tmp_path, 2 * SECOND) for _ in range(2)]
    assert runs[0] == runs[1]
    counts = runs[0][1]
    assert counts["head"] >= 55
    assert counts["wrist"] >= 55
    assert counts["force"] > 200
    assert counts["follower"] > 150


def test_the_world_says_what_there_is(tmp_path: Path) -> None:
    with stepped_world(small(seed=1)) as (_, client):
        ports = {name: client.addresses[name] for name in ("follower", "leader", "force")}
        assert all(os.path.islink(port) for port in ports.values())
        assert client.addresses["wrist"].startswith("http://127.0.0.1:")
        assert client.addresses["head"] == client.head.serial
        head = client.camera_infos["head"]
        assert head.depth_scale_m == WorldConfig().head.depth_scale_m
        assert head.base_from_camera is not None
        assert head.base_from_camera[:3, 3] == pytest.approx(WorldConfig().head.position_m)
        assert client.camera_infos["wrist"].base_from_camera is None
        assert client.judge().objects_total == len(client.objects)
        assert client.operator().phase == "waiting"
    assert not any(os.path.lexists(port) for port in ports.values())


def test_events_come_when_they_were_announced() -> None:
    with stepped_world(small()) as (clock, client):
        seen = []
        while clock.now_ns() < SECOND // 10:
            due = client.next_event_ns()
            assert due is not None
            clock.wait_until_ns(due)
            assert clock.now_ns() == due
            seen.append(due)
        assert seen[0] == 5 * MS, "the first force sample"
        assert sorted(set(seen)) == seen
        for frame in (1, 2, 3):
            assert round(frame * SECOND / 30) in seen


def test_removing_adding_and_moving_objects() -> None:
    with stepped_world(small(seed=1)) as (_, client):
        names = [o["name"] for o in client.objects]
        client.inject(Fault(device="table", kind="remove", object=names[0]))
        assert [o.name for o in client.judge().objects] == names[1:]
        client.inject(Fault(device="table", kind="add", object=names[0], x_m=0.2, y_m=-0.1))
        client.inject(Fault(device="table", kind="add", x_m=0.25, y_m=0.0))
        report = client.judge()
        assert report.objects_total == len(names) + 1
        assert report.objects[0].position_m[:2] == pytest.approx((0.2, -0.1))
        client.inject(Fault(device="table", kind="move", object=names[1], x_m=0.11, y_m=0.188))
        client.advance(SECOND)
        assert client.judge().objects[1].in_tray
        with pytest.raises(WorldError, match="no object 'pink cat' on the table; there are"):
            client.inject(Fault(device="table", kind="remove", object="pink cat"))


def _failure(device: FeetechArm) -> DeviceError | None:
    """What `device` gives up with, if it does."""
    try:
        for _ in range(100):
            device.poll()
    except DeviceError as error:
        return error
    return None


def test_bus_and_force_faults_reach_the_wire(tmp_path: Path) -> None:
    with stepped_world(one_object()) as (clock, client):
        follower = arm("follower", client, tmp_path, clock)
        follower.open()
        follower.poll()
        client.inject(Fault(device="follower", kind="silent", servo=3))
        assert _failure(follower) is not None
        client.inject(Fault(device="follower", kind="clear"))
        assert _failure(follower) is None
        client.inject(Fault(device="follower", kind="unplug"))
        assert _failure(follower) is not None
        follower.close()
        client.inject(Fault(device="follower", kind="plug"))
        follower.open()
        follower.close()

        def sent(duration_ns: int) -> int:
            return client.advance(clock.now_ns() + duration_ns)["force"]

        sensor = SerialForce("force", ForceConfig(port=client.addresses["force"]), clock)
        sensor.open()
        clock.wait_until_ns(clock.now_ns() + SECOND // 10)
        client.inject(Fault(device="force", kind="constant", value_n=25.0))
        for _ in range(200):
            clock.wait_until_ns(clock.now_ns() + 5 * MS)
            sensor.poll()
        sample = sensor.samples.newest()
        assert sample is not None
        assert np.abs(sample["force"]).max() > 10
        sensor.close()
        client.inject(Fault(device="force", kind="gone"))
        assert sent(SECOND // 10) == 0
        client.inject(Fault(device="force", kind="back"))
        assert sent(SECOND // 5) > 0


def test_frozen_cameras_send_nothing() -> None:
    with stepped_world(one_object()) as (clock, client):
        wrist = OpenCvCamera(
            "wrist", OpenCvConfig(source=client.addresses["wrist"], width=80, height=64), clock
        )
        wrist.open()
        sent = client.advance(SECOND // 5)
        assert sent["wrist"] > 3
        client.inject(Fault(device="wrist", kind="freeze"))
        assert client.advance(SECOND)["wrist"] == 0
        client.inject(Fault(device="wrist", kind="back"))
        assert client.advance(2 * SECOND)["wrist"] > 3
        client.inject(Fault(device="wrist", kind="gone"))
        assert client.advance(3 * SECOND)["wrist"] == 0
        wrist.close()
        assert client.head.serial
        client.inject(Fault(device="head", kind="freeze"))
        assert client.advance(4 * SECOND)["head"] == 0


@pytest.mark.parametrize("device", sorted(KINDS))
def test_unknown_faults_are_refused_in_one_line(device: str) -> None:
    with pytest.raises(ValidationError, match=f"{device} has no fault 'explode'; it has"):
        Fault(device=device, kind="explode")  # type: ignore[arg-type]


def test_a_silent_servo_must_be_named() -> None:
    with pytest.raises(ValidationError, match="needs servo"):
        Fault(device="follower", kind="silent")


def test_real_time_frames_carry_monotonic_stamps() -> None:
    clock = RealClock()
    with WorldClient(one_object(), clock) as client:
        began = clock.now_ns()
        stamps: list[int] = []
        with closing(Ring.attach(client.wait_ready()["ring"])) as ring:
            reader = ring.reader()
            while len(stamps) < 5:
                sample = reader.next()
                if sample is not None:
                    stamps.append(sample.stamp_ns)
                assert clock.now_ns() - began < 20 * SECOND
        assert stamps == sorted(set(stamps))
        assert began - SECOND < stamps[0]
        assert stamps[-1] <= clock.now_ns()
        assert client.health()["head_frames"] >= 5
        assert client.judge().objects_total == 1
        client.operator("start")
        client.operator("stop")
        process = client.process
    assert process.returncode == 0


def test_closing_before_it_is_ready_leaves_nothing() -> None:
    client = WorldClient(one_object(), SteppedClock())
    client.close()
    client.close()
    assert client.process.returncode is not None


def test_closing_does_not_wait_for_a_question_under_way() -> None:
    client = WorldClient(one_object(), RealClock())
    failures: list[str] = []

    def ask() -> None:
        try:
            client.wait_ready()
        except WorldError as error:
            failures.append(str(error))

    asker = threading.Thread(target=ask)
    asker.start()
    while not client._lock.locked():
        pass
    client.close()
    asker.join()
    assert len(failures) == 1
    assert "process ended" in failures[0]
    with pytest.raises(WorldError, match="is closed"):
        client.wait_ready()


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with stepped_world(one_object()) as (_, client):
        monkeypatch.setattr(client_module, "REPLY_S", 0.01)
        client.process.send_signal(signal.SIGSTOP)
        os.waitpid(client.process.pid, os.WUNTRACED)
        with pytest.raises(WorldError, match=r"did not answer within 0.01 s"):
            client.operator()
        monkeypatch.setattr(client_module, "REPLY_S", 120.0)
        client.process.send_signal(signal.SIGCONT)
        with pytest.raises(WorldError, match=r"did not answer within 0.01 s"):
            client.judge()


def test_a_world_that_cannot_start_says_why_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nonexistent")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with WorldClient(one_object(), SteppedClock()) as client:
        with pytest.raises(WorldError, match="process ended") as caught:
            client.wait_ready()
        assert "\n" not in str(caught.value)


def test_a_world_that_dies_is_reported_and_leaves_no_shared_memory() -> None:
    with stepped_world(one_object()) as (_, client):
        ring = Path("/dev/shm", client.wait_ready()["ring"])  # noqa: S108
        assert ring.exists()
        assert client.ended() == ""
        client.process.kill()
        client.process.wait()
        assert client.ended() == "the simulated world's process ended (status -9)"
        with pytest.raises(WorldError, match="process ended"):
            client.judge()
    assert not ring.exists()


_PARENT = """
import sys
from drivers.world.client import WorldClient
from drivers.world.config import WorldConfig
from runtime.clock import RealClock
client = WorldClient(WorldConfig(), RealClock())
ring = client.wait_ready()["ring"]
print(client.process.pid, ring, client.addresses["follower"], flush=True)
sys.stdin.read()
"""


def test_no_orphan_when_the_runtime_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    pid, ring, port = parent.stdout.readline().split()
    watched = os.pidfd_open(int(pid))
    try:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert select.select([watched], [], [], 20.0)[0], "the world outlived its parent"
    finally:
        os.close(watched)
        parent.stdin.close()
        parent.stdout.close()
    assert not os.path.exists(f"/dev/shm/{ring.lstrip('/')}")  # noqa: S108 - looked at, not written
    assert not os.path.lexists(port)
