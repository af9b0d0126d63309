"""A whole rollout on the simulated arm: one ordinary camera, no force sensor, a person who takes over."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun import policies
from dexrun.app import run
from dexrun.config.load import load
from dexrun.data.recorded import recorded_settings
from dexrun.data.verify import verify
from dexrun.exit_codes import OK
from dexrun.modes.rollout import RolloutMode
from runtime.interfaces import PolicyError, PolicySpec
from runtime.messages import Observation, PolicyAnswer
from runtime.pilot import Pilot
from runtime.recording.reader import Episode, Recording
from tests.dexrun.rig import AS_SERVED, CUBE, Stage, assert_tame, perform, staged
from tests.dexrun.tables import ARMS, WRIST
from tests.policies.test_grasp_mode import TINY
from tests.remote.example import EXAMPLE, served

TASK, OTHER = "put the red cube in the tray", "put the cube where it was"
ENGAGING = 0.8 / 30


@dataclass
class Wander:
    """Goes on a little from where the arm is; says what it was asked, and can be made to fail."""

    spec: PolicySpec = field(default_factory=lambda: PolicySpec("wander", 20, cameras=("wrist",)))
    asked: Counter[str] = field(default_factory=Counter)
    resets: int = 0
    dead: bool = False

    def warm_up(self) -> None: ...

    def infer(self, observation: Observation) -> PolicyAnswer:
        if self.dead:
            raise PolicyError("the server is gone")
        self.asked[observation.instruction] += 1
        way = np.array([0.02, -0.01, -0.015, 0.0, 0.01, 0.0])
        return PolicyAnswer(observation.arm.position + np.arange(1, 21)[:, None] * way)

    def reset(self) -> None:
        self.resets += 1

    def statistics(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None: ...


@pytest.fixture
def wander(monkeypatch: pytest.MonkeyPatch) -> Wander:
    made = Wander()
    monkeypatch.setattr(policies, "build_policy", lambda *_: made)
    return made


def roll_out(folder: Path, script: Any, **keys: str) -> Stage:
    file = folder / "config.toml"
    file.write_text((ARMS + WRIST).format(runs=folder / "runs", cube=CUBE))
    given = {**TINY["act"], "policy__type": "act", "policy__cameras": '["wrist"]', "mode": "rollout", **keys}
    given["policy__blend"] = "latest"
    words = [word for name, value in given.items() for word in (f"--{name.replace('__', '.')}", value)]
    stage = Stage()
    with staged(stage, script) as opener:
        stage.code = run(load(["--config", str(file), "--task", TASK, *words], {}), None, opener)
    if stage.errors:
        raise stage.errors[0]
    stage.folder = (folder / "runs" / "latest").resolve()
    stage.summary = json.loads((stage.folder / "summary.json").read_text())
    return stage


def events(episode: Episode) -> list[str]:
    return [str(e.get("phase", e["kind"])) for e in (sample.values for sample in episode.samples("/events"))]


@pytest.mark.slow
def test_a_person_takes_over_gives_back_and_says_how_it_went(tmp_path: Path, wander: Wander) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("the policy drives"))
        mode = stage.mode
        assert isinstance(mode, RolloutMode)
        commands, episodes = mode.commands(), mode._episodes
        await stage.rest(0.8)
        commands["pause"]()
        await stage.rest(0.2)
        commands["pause"]()
        await stage.rest(0.4)
        mode.tell(OTHER)
        await stage.rest(0.4)
        commands["take"]()
        await stage.until(lambda: mode.hand_over.phase.name == "PERSON")  # the script takes what is offered
        await stage.rest(1.0)
        commands["take"]()
        await stage.rest(0.6)
        episodes.stop("success", "key")
        await stage.until(lambda: episodes.on is not None and episodes.on.index == 1)
        await stage.rest(1.0)
        wander.dead = True  # the rows that are there are played; then the arm holds
        await stage.rest(1.5)
        wander.dead = False
        mode.tell(OTHER)

    keys = {"episodes": "2", "recording__episode_s": "5.5", "rollout__take_over": "true"}
    stage = roll_out(tmp_path, script, **keys)
    assert (stage.code, stage.summary["outcome"]) == (OK, "completed")
    assert stage.summary["prompt"] == TASK
    assert set(stage.summary["sensor_rates_hz"]) == {"arm", "leader", "wrist"}
    assert set(wander.asked) == {TASK, OTHER}
    found = stage.summary["rollout"]
    assert (found["successes"], found["failures"]) == (1, 1)  # the judge's word for the second
    first, second = found["episodes"]
    assert (first["outcome"], first["why"], first["takeovers"]) == ("success", "key", 1)
    assert first["policy_s"] == pytest.approx(2.2, abs=0.3)
    assert first["person_s"] == pytest.approx(1.0, abs=0.3)
    assert second["why"] == "episode_s is over"
    assert second["policy_failures"]["policy_error"] >= 1
    assert_tame(stage.up)
    with Recording(stage.folder) as recording:
        one, two = recording.episodes
        assert [e.label for e in recording.episodes] == ["success", "failure"]
        phases = [name for name in events(one) if name not in ("episode_start", "episode_end", "label")]
        expected = ["policy", "paused", "policy", "told", "paused", "bringing", "offered", "person", "policy"]
        assert phases[: len(expected)] == expected
        trouble = [name for name in events(two) if name.startswith("policy_")]
        assert trouble == ["policy_trouble", "policy_recovered"]
        ticks = one.columns("/ticks")
        pilots = ticks["pilot"]
        assert set(pilots.tolist()) == {Pilot.NOBODY, Pilot.POLICY, Pilot.PERSON}
        taken = np.flatnonzero(np.diff(pilots) != 0)
        steps = np.abs(np.diff(ticks["clipped"], axis=0))[:, :5].max(axis=1)
        assert max(steps[at : at + 3].max() for at in taken) <= ENGAGING + 1e-6  # no jump, whoever takes over
        follows = [s.values for s in one.samples("/control") if s.values["kind"] == "follow"]
        asked = [f["instruction"] for f in follows if f["source"] == "chunks"]
        assert list(dict.fromkeys(asked)) == [TASK, OTHER]  # a new attempt of the same episode
        assert "told" in phases
        follows = [s.values for s in two.samples("/control") if s.values["kind"] == "follow"]
        asked = [f["instruction"] for f in follows if f["source"] == "chunks"]
        assert list(dict.fromkeys(asked)) == [TASK, OTHER]  # which it was told again
        for episode in recording.episodes:
            verdict = verify(episode, recorded_settings(episode))
            assert verdict.same, verdict.difference


@pytest.mark.slow
def test_a_served_policy_gets_its_mask_by_phrase_and_outlives_its_server(tmp_path: Path) -> None:
    """The server dies in the middle of the episode, and another takes its place at the same port."""
    servers = contextlib.ExitStack()
    port = servers.enter_context(served("gr00t"))

    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("the policy drives"))
        await stage.rest(0.2)
        await stage.up.clock.run_blocking(servers.close)
        await stage.rest(1.2)
        again = served("gr00t", (), "--port", str(port))
        await stage.up.clock.run_blocking(lambda: servers.enter_context(again))

    try:
        stage = perform(
            tmp_path,
            script,
            config=str(EXAMPLE),
            **AS_SERVED,
            mode="rollout",
            policy__type="groot",
            policy__port=str(port),
            policy__request_timeout_s="10",
            recording__task="put the red cube in the tray",
            recording__episodes="1",
            recording__episode_s="6",
            rollout__phrase="the red cube",
        )
    finally:
        servers.close()
    (episode,) = stage.summary["rollout"]["episodes"]
    assert (stage.code, episode["why"], episode["outcome"]) == (OK, "episode_s is over", "failure")
    assert episode["policy_failures"]["policy_error"] >= 1
    assert stage.summary["policy"]["remote"]["reconnects"] >= 1
    assert stage.summary["planner"]["calls"] >= 1
    with Recording(stage.folder) as recording:
        assert recording.episodes[0].topics["/mask/head"] > 0
        assert "policy_trouble" in events(recording.episodes[0])
