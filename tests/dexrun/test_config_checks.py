"""Values that no arm, table or other key allows: one line names key and value, and nothing is begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from dexrun.__main__ import main
from dexrun.exit_codes import BAD_CONFIGURATION
from tests.dexrun.rig import arguments, settings

ARM = "shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, wrist_roll"
KNOWN = "elbow_flex, gripper, shoulder_lift, shoulder_pan, wrist_flex, wrist_roll"
CAMERAS = "is not a camera; [cameras] has: head, wrist"
NO_SUCH = "the simulated tabletop has no such device for driver"
BASE_URL = "give it as http://host:port/v1, an IPv6 address in brackets"
OFTEN = "one comes every"
PLACE = "give what is above the table and within 0.56 m"

IMPOSSIBLE = {
    "policy.discrete ['hand']": f".hand: no such joint; known: {KNOWN}",
    # limits of one joint
    "safety.joints.wrist_roll.max_velocity_rad_s 50": (
        " = 50 is more than safety.max_velocity_rad_s (2.5); a joint's own limit is tighter"
    ),
    "safety.joints.wrist_roll.lower_rad 10": (
        " = 10 is outside of what the joint can do, -3.14158 to 3.14158"
    ),
    # poses
    "grasp.home_rad [0,0]": f" = [0.0, 0.0]: give 6 values, one each for {ARM}, gripper",
    "grasp.home_rad [9,0,0,0,0,0]": (
        " = [9.0, 0.0, 0.0, 0.0, 0.0, 0.0]: shoulder_pan is 9; [safety] lets it be -2.19 to 2.19"
    ),
    "teleop.center_rad [1,2]": f" = [1.0, 2.0]: give 6 values, one each for {ARM}, gripper",
    "policy.look_rad [0]": f" = [0.0]: give 5 values, one each for {ARM}",
    "policy.look_rad [0,1,0,0,0]": (
        " = [0.0, 1.0, 0.0, 0.0, 0.0]: shoulder_lift is 1; [safety] lets it be -3.13158 to 0.19"
    ),
    "grasp.place_m [9,9,9]": (
        " = [9.0, 9.0, 9.0]: with grasp.place_spread_m the farthest spot is 15.63 m from the base; " + PLACE
    ),
    "grasp.place_m [0.1,0.1,-0.1]": (
        " = [0.1, 0.1, -0.1]: with grasp.place_spread_m the farthest spot is 0.21 m from the base; " + PLACE
    ),
    "control.park_rad [0]": f" = [0.0]: give 5 values, one each for {ARM}",
    "control.park_rad [9,0,0,0,0]": (
        " = [9.0, 0.0, 0.0, 0.0, 0.0]: shoulder_pan is 9; [safety] lets it be -2.19 to 2.19"
    ),
    # roles, and what a device can do
    "arm.role leader": " = 'leader': input should be 'follower'",
    "leader.role follower": " = 'follower': input should be 'leader'",
    "cameras.wrist.fps 1000": " = 1000: simulated, it should be less than or equal to 90",
    "cameras.head.width 100000": " = 100000: simulated, it should be less than or equal to 1920",
    "policy.camera wrist": (
        " = 'wrist': it must be grasp.head ('head'), in whose pictures the object is tracked"
    ),
    # what must be fresh comes often enough; a device has one table
    "grasp.stale_camera_s 0.1": f" = 0.1: at cameras.head.fps = 10 {OFTEN} 0.1 s; give at least 0.15",
    "grasp.stale_force_s 0.02": f" = 0.02: at force.rate_hz = 60 {OFTEN} 0.0167 s; give at least 0.025",
    "cameras.wrist.source world:head": (
        " = 'world:head': cameras.head.serial is the same device; it has one table"
    ),
    # the simulated tabletop has that device, of that kind
    "arm.port world:leader": f" = 'world:leader': {NO_SUCH} 'feetech'; give world:follower",
    "leader.port world:follower": f" = 'world:follower': {NO_SUCH} 'feetech'; give world:leader",
    "force.port world:": f" = 'world:': {NO_SUCH} 'serial'; give world:force",
    "cameras.head.serial world:haed": f" = 'world:haed': {NO_SUCH} 'realsense'; give world:head",
    "cameras.wrist.source world:typo": f" = 'world:typo': {NO_SUCH} 'opencv'; give world:wrist",
    # addresses of servers
    "planner.base_url 127.0.0.1:8000/v1": (
        " = '127.0.0.1:8000/v1': give a URL, such as http://gpu-server:8000/v1"
    ),
    "planner.base_url http://gpu:99999/v1": (
        f" = 'http://gpu:99999/v1': port out of range 0-65535; {BASE_URL}"
    ),
    "planner.base_url http://::1:8000/v1": f" = 'http://::1:8000/v1': no host in it; {BASE_URL}",
    "planner.base_url http://gpu/v1?v=2": (
        " = 'http://gpu/v1?v=2': what is asked for is put behind it: give it without ? and #"
    ),
    # names of other tables
    "policy.camera nope": f" = 'nope' {CAMERAS}",
    "faults.rules.amr.gone stop": ": no such device; did you mean 'arm'?",
    "faults.rules {'amr.gone'='stop'}": ".amr.gone: no such device; did you mean 'arm'?",
    "faults.rules {'arm.gnoe'='stop'}": ".arm.gnoe: no such kind; did you mean 'gone'?",
    "faults.rules {arm='stop'}": '.arm: a rule is "<device>.<kind>", "<device>.*" or "*.<kind>"',
    "faults.rules {'*.*'='stop'}": '.*.*: a rule is "<device>.<kind>", "<device>.*" or "*.<kind>"',
    # the simulated table
    "world.placed [{x_m=5.0}]": ".0.x_m = 5.0: input should be less than or equal to 0.9",
    "world.placed [{size_m=[0,0.02,0.02]}]": (
        ".0.size_m.0 = 0: input should be greater than or equal to 0.005"
    ),
}


def said(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a configuration that is refused."""
    assert main([*arguments(tmp_path), *words]) == BAD_CONFIGURATION
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n"), list(tmp_path.iterdir())) == ("", 1, [])
    return output.err


@pytest.mark.parametrize("given", IMPOSSIBLE)
def test_an_impossible_value_is_one_line(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, value = given.split()
    line = said(tmp_path, capsys, f"--{key}", value)
    assert line == f"dexrun: command line: {key}{IMPOSSIBLE[given]}\n"


def test_a_body_of_the_leaders_without_a_model_has_no_effect_and_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said(tmp_path, capsys, "--leader.body.joints", "['pan']")
    assert line == (
        "dexrun: command line: leader.body: without leader.model the leader is of the follower's model, "
        "and has its body\n"
    )


@pytest.mark.parametrize("camera", ["head", "wrist"])
def test_a_camera_is_waited_for_longer_than_a_frame_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], camera: str
) -> None:
    line = said(tmp_path, capsys, f"--cameras.{camera}.fps", "4", f"--cameras.{camera}.timeout_s", "0.2")
    message = f"cameras.{camera}: timeout_s = 0.2: at fps = 4 one comes every 0.25 s; give at least 0.375"
    assert line == f"dexrun: command line: {message}\n"
    for fps, waits_s in (("1", 2.5), ("3", 2.5 / 3), ("30", 0.2)):
        table = settings(tmp_path, **{f"cameras__{camera}__fps": fps}, grasp__stale_camera_s="2").cameras[
            camera
        ]
        assert getattr(table, "frame_timeout_s") == pytest.approx(waits_s)  # noqa: B009 - of both kinds


def test_a_camera_called_as_anothers_depth_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = "{driver='opencv', source='http://camera/stream'}"
    line = said(tmp_path, capsys, "--cameras.head_depth", table)
    assert "cameras.head_depth: the depth pictures of cameras.head are called so; give another name" in line


def test_the_geometric_policy_needs_depth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = said(tmp_path, capsys, "--policy.camera", "wrist", "--grasp.head", "wrist")
    message = "policy.camera = 'wrist': the geometric policy needs depth, and it has none"
    assert line == f"dexrun: command line: {message}\n"


def test_a_force_sensor_that_feels_not_every_force_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said(tmp_path, capsys, "--force.calibration", "[[1,0,0],[0,1,0],[1,1,0]]")
    assert "calibration is singular: some force would not be felt" in line


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("world.placed", "[{},{}]", ": placed: two objects are called 'red cube'; give each its own name"),
        ("world.start_rad", "[9,0,0,0,0]", ".start_rad: shoulder_pan is 9; it can be -2.2 to 2.2"),
    ],
)
def test_a_world_that_cannot_be_is_one_line(
    key: str, value: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(tmp_path, capsys, f"--{key}", value) == f"dexrun: command line: world{message}\n"


@pytest.mark.parametrize(
    ("policy", "key", "message"),
    [
        ("act", "policy.cameras", f"policy.cameras = 'nope' {CAMERAS}"),
        ("dexgrasp", "policy.wrist_camera", f"policy.wrist_camera = 'nope' {CAMERAS}"),
        ("openpi", "policy.keys.depths", f"policy.keys.depths = 'nope' {CAMERAS}"),
    ],
)
def test_every_policys_cameras_are_there(
    policy: str, key: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = {"act": "['nope']", "openpi": "{nope='depth'}"}.get(policy, "nope")
    line = said(tmp_path, capsys, "--policy.type", policy, f"--{key}", value)
    assert line == f"dexrun: command line: {message}\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [("p_gain", "32"), ("joint_torque_limit_fraction.gripper", "0.4"), ("trust_torque_s", "0.01")],
)
def test_what_needs_torque_is_refused_of_a_leader(
    key: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said(tmp_path, capsys, f"--leader.{key}", value)
    name = key.partition(".")[0]
    assert line == f"dexrun: command line: leader: {name} has no effect: a leader's torque is off\n"


@pytest.mark.parametrize("name", ["arm", "force", "policy"])
def test_a_camera_is_called_as_no_other_part(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said(tmp_path, capsys, f"--cameras.{name}.driver", "opencv", f"--cameras.{name}.source", "3")
    assert line == (
        f"dexrun: command line: cameras.{name}: reports call another part so; give another name\n"
    )


@pytest.mark.parametrize("kind", ["act", "dexgrasp"])
def test_keys_that_a_network_fixes_are_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said(tmp_path, capsys, "--policy.type", kind, "--policy.keys.cameras", "{head='top'}")
    assert line.startswith("dexrun: command line: policy.keys: cameras has no effect here: ")


def test_another_modes_values_may_wait(tmp_path: Path) -> None:
    """Teleoperation does not go home, and looks through no policy's camera."""
    keys = {"safety__joints__wrist_flex__upper_rad": "1.0", "policy__camera": "nope"}
    assert settings(tmp_path, mode="teleop", **keys).mode == "teleop"
    assert settings(tmp_path, mode="teleop", grasp__place_m="[9,9,9]").mode == "teleop"


def test_a_rule_may_name_any_http_error_of_the_planner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such kind" not in said(
        tmp_path, capsys, "--faults.rules", "{'planner.http_503'='stop'}", "--arm.port", "9"
    )
    line = said(tmp_path, capsys, "--faults.rules", "{'planner.http_5'='stop'}")
    assert line.startswith(
        "dexrun: command line: faults.rules.planner.http_5: no such kind; known: bad_calibration, "
    )


def test_weights_of_one_arm_move_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The policy that ships has all of its numbers in the frame of the SO-100."""
    words = arguments(tmp_path, policy__type="lift", arm__model="so101")
    assert main([*words, "--check"]) == BAD_CONFIGURATION
    said = capsys.readouterr().err
    assert (
        "policy.checkpoint = 'shipped': it was trained on the arm 'so100', and arm.model is 'so101'" in said
    )
    assert said.count("\n") == 1
    settings(tmp_path, policy__type="lift", policy__checkpoint="", arm__model="so101")  # to be trained
    settings(tmp_path, policy__type="lift", arm__model="so101", mode="teleop")
    assert settings(tmp_path, policy__type="lift").policy.trained_arm() == "so100"


def test_the_same_arm_under_another_name_is_the_same_arm(tmp_path: Path) -> None:
    from dexrun.config.checks import _moves_alike
    from drivers.arms import describe

    here = describe("so100")
    assert _moves_alike("so100", here)
    assert not _moves_alike("so101", here)
    assert not _moves_alike("nobody's", here)
