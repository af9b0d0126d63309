"""``dexrun doctor``: what it finds on machines that a folder shows, on emulated buses, and at a server."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from serial.tools.list_ports_common import ListPortInfo

from dexrun.config.load import load
from dexrun.config.settings import Settings
from dexrun.setup import deep_checks
from dexrun.setup.doctor import main
from dexrun.setup.findings import Grade, PreflightFinding, failures
from dexrun.setup.machine import HostMachine
from dexrun.setup.preflight import bandwidth, preflight, warn_before_a_run
from drivers.arms.so100 import JOINT_NAMES
from drivers.feetech import registers as reg
from drivers.feetech.calibration import JointCalibration, save_calibration
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.options import FeetechOptions
from drivers.feetech.servo import SimpleServoBank
from drivers.opencv_camera.usb import UsbBus, bus_of, reserved_mbit_s, stream_mb_s
from drivers.serial_port import find_port
from runtime.clock import RealClock
from runtime.realtime import RealtimeOptions, apply_realtime
from runtime.stepped import SteppedClock

ROOT = Path(__file__).parents[2]
NOW_NS = 1_800_000_000 * 10**9
RANGES = ((750, 3390), (840, 3210), (890, 3080), (870, 3190), (0, 4095), (2030, 3480))
CALIBRATION = {
    name: JointCalibration(id=i, homing_offset=10 * i, range_min=low, range_max=high)
    for i, (name, (low, high)) in enumerate(zip(JOINT_NAMES, RANGES, strict=True), 1)
}


class Host(HostMachine):
    """A machine as `root` shows it, with these rights."""

    denied: tuple[str, ...] = ()
    fifo = ""
    free = 50_000

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.adapters = {"58FA": "/dev/ttyACM3"}

    def port_of(self, device: str, path: str, serial_number: str) -> str:
        listed = [ListPortInfo(each) for each in self.adapters.values()]
        for info, number in zip(listed, self.adapters, strict=True):
            info.serial_number = number
        return find_port(device, path, serial_number, lambda: listed)

    def allowed(self, path: str) -> bool:
        return path not in self.denied

    def group_of(self, path: str) -> str:
        return "dialout"

    def fifo_refused(self, priority: int) -> str:
        return self.fifo

    def free_mib(self, folder: Path) -> int:
        return self.free


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "root")


def settings(tmp_path: Path, *arguments: str) -> Settings:
    save_calibration(tmp_path / "arm.json", CALIBRATION)
    return load(["--config", str(ROOT / "config.toml"), "--runs", str(tmp_path), *arguments], {})


def real(tmp_path: Path, port: str) -> list[str]:
    return ["--arm.port", port, "--arm.calibration", str(tmp_path / "arm.json")]


def found(of: Settings, host: HostMachine, wall_ns: int = NOW_NS) -> dict[str, PreflightFinding]:
    return {finding.what: finding for finding in preflight(of, host, wall_ns)}


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_a_simulated_arm_needs_nothing(tmp_path: Path, host: Host) -> None:
    assert {finding.grade for finding in found(settings(tmp_path), host).values()} == {Grade.PASS}


@pytest.mark.parametrize(
    ("arrange", "what", "grade", "said"),
    [
        (
            lambda host: None,
            "arm.port",
            Grade.FAIL,
            "/dev/ttyACM0 is not there; plug it in; dexrun find-ports",
        ),
        (
            lambda host: touch(host.root, "dev/ttyACM0"),
            "arm.port",
            Grade.WARN,
            "another adapter's after a replug; write the link below /dev/serial/by-id",
        ),
        (
            lambda host: (touch(host.root, "dev/ttyACM0"), setattr(host, "denied", ("/dev/ttyACM0",))),
            "arm.port",
            Grade.FAIL,
            "may not open it; sudo usermod -aG dialout $USER, then log in anew; or write /etc/udev/rules.d/",
        ),
        (lambda host: setattr(host, "free", 100), "disk", Grade.FAIL, "100 MiB are free"),
        (
            lambda host: setattr(host, "fifo", "Operation not permitted"),
            "scheduling",
            Grade.WARN,
            "rtprio 50",
        ),
    ],
)
def test_what_a_machine_lacks_is_said_with_what_to_do(
    tmp_path: Path, host: Host, arrange: Callable[[Host], object], what: str, grade: Grade, said: str
) -> None:
    arrange(host)
    fifo = ["--realtime.scheduler", "fifo", "--realtime.priority", "50"]
    finding = found(settings(tmp_path, *real(tmp_path, "/dev/ttyACM0"), *fifo), host)[what]
    assert (finding.grade, said in finding.line()) == (grade, True), finding


def test_a_gpu_that_is_asked_for_is_looked_for(tmp_path: Path, host: Host) -> None:
    asked = settings(tmp_path, "--policy.type", "lift", "--policy.device", "cuda")
    assert "policy.device = 'cuda', and no NVIDIA driver" in found(asked, host)["GPU"].line()
    touch(host.root, "proc/driver/nvidia/version")
    assert found(asked, host)["GPU"].grade is Grade.PASS
    assert found(asked, host, 0)["clock"].grade is Grade.WARN


def camera(root: Path, number: int, socket_: str) -> None:
    """A UVC camera on the bus ``usb1``, as sysfs shows it."""
    usb = root / "sys/devices/pci0000:00/usb1"
    device = usb / socket_ / f"{socket_}:1.0"
    device.mkdir(parents=True)
    (usb / "speed").write_text("480\n")
    (usb / socket_ / "speed").write_text("480\n")
    node = root / f"sys/class/video4linux/video{number}"
    node.mkdir(parents=True)
    (node / "device").symlink_to(device)
    touch(root, f"dev/video{number}")


def test_two_yuyv_cameras_fill_a_bus_and_mjpg_does_not(tmp_path: Path, host: Host) -> None:
    camera(host.root, 0, "1-1")
    camera(host.root, 2, "1-2")
    assert bus_of(2, host.root) == UsbBus("usb1", 480.0)
    assert bus_of("/dev/video7", host.root) is None

    def usb(fourcc: str) -> PreflightFinding:
        size = f'driver = "opencv"\nwidth = 640\nheight = 480\nfps = 30\nfourcc = "{fourcc}"\n'
        text = '[arm]\nport = "world:follower"\n[leader]\nport = "world:leader"\n'
        text += f"[cameras.head]\nsource = '/dev/video2'\n{size}[cameras.wrist]\nsource = 0\n{size}"
        (tmp_path / "two.toml").write_text(text)
        return found(load(["--config", str(tmp_path / "two.toml"), "--mode", "teleop"], {}), host)["USB"]

    assert usb("YUYV").line() == (
        "FAIL  USB: usb1: head 18.4 MB/s, wrist 18.4 MB/s, 295 of 480 Mbit/s, of which cameras reserve 393 "
        'and may reserve 384; set fourcc = "MJPG", or plug one camera into a socket of another bus'
    )
    assert usb("MJPG").grade is Grade.PASS
    assert bandwidth([("a", 18.4), ("b", 18.4)], UsbBus("usb2", 5000.0)).grade is Grade.PASS
    assert stream_mb_s(640, 480, 30, "YUYV") == 18.432
    assert reserved_mbit_s(18.432) == 3 * 65.536


def arm(folder: Path, **more: dict[reg.Register, int]) -> FeetechEmulator:
    bank = SimpleServoBank(SteppedClock(), {i: 2500 + 10 * i for i in range(1, 7)})
    kept = {
        joint.id: {
            reg.HOMING_OFFSET: joint.homing_offset,
            reg.MIN_POSITION_LIMIT: joint.range_min,
            reg.MAX_POSITION_LIMIT: joint.range_max,
            **more.get(name, {}),
        }
        for name, joint in CALIBRATION.items()
    }
    return FeetechEmulator(bank, folder / "bus", registers=kept)


@pytest.mark.parametrize(
    ("more", "grade", "said"),
    [
        ({}, Grade.PASS, "and get 12.0 V"),
        (
            {"elbow_flex": {reg.HOMING_OFFSET: -5}},
            Grade.FAIL,
            "elbow_flex: Homing_Offset is -5 in the servo, homing_offset is 30 in the file; use the file",
        ),
    ],
)
def test_servos_are_compared_with_their_file(
    tmp_path: Path, more: dict[str, dict[reg.Register, int]], grade: Grade, said: str
) -> None:
    save_calibration(tmp_path / "arm.json", CALIBRATION)
    emulator = arm(tmp_path, **more)
    table = FeetechOptions(port=emulator.port, calibration=tmp_path / "arm.json")
    try:
        finding = deep_checks.servos_of("arm", table, SteppedClock())
        emulator.faults.silent = set(range(1, 7))
        silent = deep_checks.servos_of("arm", table, SteppedClock())
    finally:
        emulator.close()
    assert (finding.grade, said in finding.line()) == (grade, True), finding
    assert "no answer from servo 1 (shoulder_pan)" in silent.line()


def test_the_embedded_planner_answers_all_seven_tasks(tmp_path: Path) -> None:
    clock = RealClock()
    finding = clock.run(deep_checks.planner, settings(tmp_path), clock)
    assert finding.grade is Grade.PASS, finding
    assert "answers all 7 tasks" in finding.said


def test_servers_that_are_not_there_fail(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        there = settings(tmp_path, "--policy.type", "openpi", "--policy.port", str(port))
        assert [f.grade for f in deep_checks.policy_server(there)] == [Grade.PASS]
    assert [f.grade for f in deep_checks.policy_server(there)] == [Grade.FAIL]
    clock = RealClock()
    gone = settings(tmp_path, "--planner.base_url", f"http://127.0.0.1:{port}/v1", "--planner.retries", "0")
    finding = clock.run(deep_checks.planner, gone, clock)
    assert finding.grade is Grade.FAIL
    assert "unreachable" in finding.said


@pytest.mark.parametrize(
    ("late_ns", "scheduler", "line"),
    [
        (10_000, "fifo", "PASS  waking: an ordinary thread is woken 10 us late (p99 of 100)"),
        (
            3_000_000,
            "other",
            "WARN  waking: an ordinary thread is woken 3000 us late (p99 of 100); end what else runs, or "
            'realtime.scheduler = "fifo" (docs/kernel.md)',
        ),
        (
            3_000_000,
            "fifo",
            "WARN  waking: an ordinary thread is woken 3000 us late (p99 of 100); end what else runs "
            "(docs/kernel.md)",
        ),
    ],
)
def test_who_has_fifo_is_not_told_to_ask_for_it(
    tmp_path: Path, late_ns: int, scheduler: str, line: str
) -> None:
    class Late(RealClock):
        ns = 0

        def now_ns(self) -> int:
            return self.ns

        def wait_until_ns(self, due_ns: int) -> None:
            self.ns = due_ns + late_ns

    of = settings(tmp_path, "--realtime.scheduler", scheduler)
    assert deep_checks.waking(of, Late()).line() == line


def test_json_and_exit_codes(tmp_path: Path, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    teleop = ["--config", str(ROOT / "config.toml"), "--mode", "teleop", "--runs", str(tmp_path)]
    assert main([*teleop, "--json"], host) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {"versions", "disk", "disk speed", "waking", "clock"} <= {each["what"] for each in findings}
    assert main([*teleop, "--control.rate_hz", "x"], host) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("FAIL  configuration: ")
    assert said[1] == "0 PASS, 0 WARN, 1 FAIL"


def test_a_run_says_the_failures_first(
    tmp_path: Path, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    of = settings(tmp_path, *real(tmp_path, "/dev/serial/by-id/arm"))
    warn_before_a_run(of, host)
    assert capsys.readouterr().err == (
        "dexrun: FAIL  arm.port: /dev/serial/by-id/arm is not there; plug it in; dexrun find-ports lists "
        "what is\n"
    )
    assert len(failures(preflight(of, host, NOW_NS))) == 1


def test_an_arm_that_is_known_by_its_adapters_number_is_looked_for_by_it(tmp_path: Path, host: Host) -> None:
    touch(host.root, "dev/ttyACM3")
    numbered = [*real(tmp_path, "/dev/ttyACM0"), "--arm.serial_number", "58FA"]
    found_ = found(settings(tmp_path, *numbered), host)
    assert found_["arm.port"].line() == "PASS  arm.port: /dev/ttyACM3 is there and may be opened"
    host.adapters.clear()
    lost = found(settings(tmp_path, *numbered), host)
    assert (
        lost["arm.serial_number"].line().startswith("FAIL  arm.serial_number: 58FA: no serial port has this")
    )
    assert "arm.port" not in lost


def test_a_path_that_is_not_absolute_is_where_a_driver_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "links/arm")
    assert HostMachine().exists("links/arm")
    assert HostMachine().exists(str(tmp_path / "links/arm"))
    assert not HostMachine().exists("links/leader")


def test_who_may_not_take_back_what_is_reset_on_fork_keeps_the_schedule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As an ``rtprio`` limit has it: FIFO is granted, and nothing without the flag after it."""
    flagged: dict[int, bool] = {}

    def set_(process: int, policy: int, parameter: os.sched_param) -> None:
        here = threading.get_ident()
        if flagged.get(here) and not policy & os.SCHED_RESET_ON_FORK:
            raise PermissionError(1, "Operation not permitted")
        flagged[here] = bool(policy & os.SCHED_RESET_ON_FORK)

    monkeypatch.setattr(os, "sched_setscheduler", set_)
    assert HostMachine().fifo_refused(50) == ""
    assert threading.get_ident() not in flagged
    done = apply_realtime(RealtimeOptions(scheduler="fifo", keep_memory=False, gc_freeze=False))
    policies: list[int] = []

    def noted(process: int, policy: int, parameter: os.sched_param) -> None:
        set_(process, policy, parameter)
        policies.append(policy)

    monkeypatch.setattr(os, "sched_setscheduler", noted)
    done.undo()
    assert policies == [os.sched_getscheduler(0) | os.SCHED_RESET_ON_FORK]
