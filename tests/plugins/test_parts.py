"""Parts of other packages are found by their entry points, and those that are broken are in nobody's way."""

from __future__ import annotations

import contextlib
import json
import os
import tomllib
from collections.abc import AsyncIterator, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.__main__ import main
from dexrun.app import run
from dexrun.config.load import ConfigError, dump, load, load_tables
from dexrun.config.reference import reference
from dexrun.config.settings import Settings
from dexrun.modes.mode import Mode
from dexrun.modes.one_episode import OneEpisode
from dexrun.modes.teleop import TeleopMode
from dexrun.policies import build_policy, policy_context
from dexrun.robot import Robot
from drivers.arms import describe
from runtime import plugins
from runtime.arm_model import ArmModel
from runtime.clock import RealClock
from runtime.interfaces import (
    ArmDriver,
    CameraDriver,
    Detector,
    ForceDriver,
    LeaderDriver,
    Policy,
    Prompt,
    Segmenter,
    Tracker,
)
from runtime.messages import ArmState, CameraInfo, Frame, Intrinsics, Observation
from runtime.parts import table_of
from runtime.recording.reader import Recording
from tests.plugins.distribution import distribution, installed

ROOT = Path(__file__).parents[2]
ACME = {
    "dexrun.arms": {"ideal": "acme_parts:IdealTable"},
    "dexrun.cameras": {
        "grey": "acme_parts:GreyTable",
        "broken": "acme_broken:Table",
        "half": "acme_more:Half",
        "other": "acme_more:Other",
        "opencv": "acme_parts:GreyTable",
    },
    "dexrun.leaders": {"waving": "acme_parts:WavingTable"},
    "dexrun.policies": {"stay": "acme_parts:StayTable"},
    "dexrun.force": {"spring": "acme_parts:SpringTable"},
    "dexrun.perception": {
        "detector.middle": "acme_parts:MiddleTable",
        "segmenter.box": "acme_parts:WholeBoxTable",
        "tracker.patient": "acme_parts:PatientTable",
        "color": "acme_more:Other",
    },
}
MORE = """
from runtime import CameraTable
class Half(CameraTable): pass
class Other: pass
"""
CONFIG = """
mode = "teleop"
[arm]
driver = "ideal"
start_rad = { shoulder_pan = 1.57, shoulder_lift = -3.05, elbow_flex = 2.7, wrist_flex = 1.2 }
[leader]
driver = "waving"
about_rad = [-1.2, -3.0, 2.6, 1.2, 0.0, 0.3]
[cameras.side]
driver = "grey"
width = 32
height = 24
level = 9
[force]
driver = "spring"
channels = 2
[perception]
detector.type = "middle"
segmenter.type = "box"
tracker.type = "patient"
[policy]
type = "stay"
[teleop]
duration_s = 2.0
[recording]
api = false
[terminal]
style = "none"
[realtime]
clock = "stepped"
"""


@pytest.fixture
def _acme(tmp_path: Path) -> Iterator[None]:
    folder = tmp_path / "site"
    parts = (Path(__file__).parent / "acme_parts.py").read_text()
    broken = "raise RuntimeError('no such\\ndriver library')\n"
    modules = {"acme_parts.py": parts, "acme_broken.py": broken, "acme_more.py": MORE}
    distribution(folder, "acme-parts", ACME, modules)
    with installed(folder):
        yield


@pytest.fixture
def config(tmp_path: Path, _acme: None) -> str:
    path = tmp_path / "acme.toml"
    path.write_text(CONFIG)
    return str(path)


def test_the_built_in_parts_are_registered_and_usable() -> None:
    """Fails where the metadata are older than pyproject.toml: install anew."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    wanted = {(group, name, ref) for group, names in declared.items() for name, ref in names.items()}
    points = metadata.distribution("dexrun").entry_points
    found = {(each.group, each.name, each.value) for each in points if each.group in declared}
    assert found == wanted, plugins.STALE
    own = [part for part in plugins.installed().parts if part.distribution == plugins.OWN]
    assert len(own) == len(wanted)
    for part in own:
        assert not table_of(part).is_choice()


def test_tables_of_outside_are_configured_like_built_in_ones(config: str) -> None:
    settings = load(["--config", config, "--cameras.side.level", "11"])
    assert (settings.cameras["side"].level, settings.cameras["side"].fps) == (11, 30)  # type: ignore[attr-defined]
    assert (settings.arm.driver, settings.policy.type, settings.policy.worker) == ("ideal", "stay", "thread")
    again = load_tables(Settings, json.loads(dump(settings)), [], "a recording")
    assert again == settings


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--cameras.side.levle 3", "cameras.side.levle: unknown key; did you mean 'level'?"),
        (
            "--cameras.side.level 300",
            "cameras.side.level = '300': input should be less than or equal to 255",
        ),
        ("--cameras.side.driver gray", "cameras.side.driver = 'gray': unknown; did you mean 'grey'?"),
        ("--arm.start_rad.elbow 1", "arm.start_rad.elbow: no such joint; did you mean 'elbow_flex'?"),
        (
            "--policy.camera top --mode grasp --grasp.head side --grasp.wrist side",
            "policy.camera = 'top' is not a camera; [cameras] has: side",
        ),
        (
            "--cameras.side.driver broken",
            "cameras.side.driver = 'broken': cannot be used: acme-parts 1.2: RuntimeError: no such driver"
            " library",
        ),
        (
            "--cameras.side.driver half",
            "cameras.side.driver = 'half': cannot be used: acme-parts 1.2: acme_more:Half does not define"
            " build",
        ),
        (
            "--cameras.side.driver other",
            "cameras.side.driver = 'other': cannot be used: acme-parts 1.2:"
            " acme_more:Other is no subclass of runtime.CameraTable",
        ),
    ],
)
def test_a_mistake_in_such_a_table_is_one_line(config: str, words: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(["--config", config, *words.split()])
    assert str(caught.value) == f"command line: {said}"


@pytest.mark.usefixtures("_acme")
def test_plugins_lists_what_is_installed_and_why_some_cannot_be_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--plugins"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("KIND NAME FROM")
    assert "policy stay acme-parts 1.2 acme_parts:StayTable" in lines
    assert "camera broken acme-parts 1.2 error: RuntimeError: no such driver library" in lines
    assert "camera half acme-parts 1.2 error: acme_more:Half does not define build" in lines
    assert any(line.startswith("camera opencv dexrun 0.") for line in lines)
    taken = [line for line in lines if line.startswith("camera opencv acme-parts 1.2 error: dexrun 0.")]
    assert taken[0].endswith("has a camera of this name already")
    unnamed = "error: the name of an entry point of dexrun.perception begins with"
    assert f"perception color acme-parts 1.2 {unnamed} detector, segmenter or tracker and a dot" in lines


@pytest.mark.usefixtures("_acme")
def test_what_is_broken_is_not_imported_until_it_is_configured() -> None:
    parts = {(p.kind, p.name): p for p in plugins.installed().parts if p.distribution == "acme-parts"}
    load(["--config", str(ROOT / "config.toml")])
    assert parts["camera", "broken"].error == ""


@pytest.mark.usefixtures("_acme")
def test_the_page_of_keys_can_have_them() -> None:
    assert '## `[cameras.NAME]` with `driver = "grey"`' not in reference()
    page = reference(outside=True)
    assert '## `[cameras.NAME]` with `driver = "grey"`' in page
    assert "| `level` | int | `7` | how light it is, 0 to 255. |" in page


def test_metadata_older_than_the_code_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", _None)
    plugins.installed.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"no built-in parts are registered: reinstall dexrun"):
            load(["--config", str(ROOT / "config.toml")])
    finally:
        monkeypatch.undo()
        plugins.installed.cache_clear()


class _None:
    def select(self, **_: str) -> list[object]:
        return []


def test_a_robot_of_such_parts_is_teleoperated_and_recorded(tmp_path: Path, config: str) -> None:
    """No device of the simulated tabletop's is opened, so that none of it is there."""
    settings = load(["--config", config, "--runs", str(tmp_path / "runs")])
    robots: list[Robot] = []

    @contextlib.asynccontextmanager
    async def opener(robot: Robot, *given: Any) -> AsyncIterator[Mode]:
        robots.append(robot)
        assert robot.leader is not None
        yield OneEpisode(TeleopMode(robot, robot.leader), given[-1], "wave")

    assert run(settings, opener=opener) == 0
    [robot] = robots
    assert robot.world is None
    assert isinstance(robot.arm, ArmDriver)
    assert isinstance(robot.leader, LeaderDriver)
    assert isinstance(robot.cameras["side"], CameraDriver)
    assert isinstance(robot.force, ForceDriver)
    with Recording(tmp_path / "runs" / "latest") as recording:
        [episode] = recording.episodes
        waved = episode.array("/arm/sent", "position")[:, 0]
        assert np.ptp(waved) > 0.3
        force = episode.array("/force", "force")
        assert (force[-1].tolist(), robot.force.tared) == ([0.0, 0.0], ("",))  # a zero was asked for
        assert episode.config["cameras"]["side"]["driver"] == "grey"
    assert main(["replay", str(tmp_path / "runs" / "latest"), "--verify"]) == 0


def test_eyes_of_outside_are_built(config: str) -> None:
    perception = load(["--config", config]).perception
    detector, segmenter = perception.detector.build(), perception.segmenter.build()
    tracker = perception.tracker.build()
    assert isinstance(detector, Detector)
    assert isinstance(segmenter, Segmenter)
    assert isinstance(tracker, Tracker)
    image = np.zeros((24, 32, 3), np.uint8)
    [found] = detector.detect(image, ["cup"])
    assert (found.box, found.phrase) == ((8, 6, 24, 18), "cup")
    segmented = segmenter.segment(image, Prompt(box=(2.0, 3.0, 6.0, 5.0)))
    assert tracker.init(Frame("side", 3, image), segmented.mask).mask.sum() == 8


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_a_policy_of_outside_answers_here_and_in_a_process(config: str, worker: str) -> None:
    table = load(["--config", config, "--policy.worker", worker]).policy
    model = describe().model()
    side = CameraInfo("side", Intrinsics(32, 24, 123.5, 100, 16, 12))
    policy = build_policy(table, policy_context(model, {"side": side}, RealClock()))
    try:
        assert isinstance(policy, Policy)
        assert (policy.spec.name, policy.spec.cameras, policy.spec.notes["fx"]) == (
            "stay",
            ("side",),
            "123.5",
        )
        assert (policy.spec.notes["pid"] == str(os.getpid())) is (worker == "thread")
        policy.warm_up()
        rows = policy.infer(_observation(model)).rows
    finally:
        policy.close()
    assert rows.shape == (6, 6)
    assert rows[0, -1] == 0.5
    assert rows[0, 0] == model.fk(model.middle())[0, 3]


def _observation(model: ArmModel) -> Observation:
    q = model.middle()
    frame = Frame("side", 3, np.zeros((24, 32, 3), np.uint8))
    return Observation(0, 0, 5, ArmState(4, q, 0 * q, 0 * q), {"side": frame})
