"""The folder of an evaluation: gone on with, refused, mended; and what the command line asks for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dexrun.config.sources import ConfigError
from dexrun.evaluation import scenes, trials
from dexrun.evaluation.asked import candidates_of, read
from dexrun.evaluation.command import report
from dexrun.evaluation.playing import play_all, tasks_of
from dexrun.evaluation.results import RESULTS, ResultFile, SceneResult
from dexrun.evaluation.scenes import SceneTask, from_summary, play_run
from dexrun.evaluation.trials import labelled

ASKED = {"engine": "stepped", "words": ["--config", "config.toml"], "env": "", "task": ""}
GOOD = SceneResult("geometric", 10_000, 4, 4, success=True)


def test_what_was_played_is_there_when_the_folder_is_opened_again(tmp_path: Path):
    file = ResultFile(tmp_path / "eval", ASKED)
    file.add(GOOD)
    file.add(SceneResult("geometric", 10_001, error="exit 3"))
    again = ResultFile(tmp_path / "eval", ASKED)
    assert list(again.results.values()) == [GOOD]  # what came to nothing is played again
    assert again.of("geometric", (10_000, 10_001)) == [GOOD]


def test_a_line_that_a_kill_cut_off_costs_itself_alone(tmp_path: Path):
    file = ResultFile(tmp_path, ASKED)
    file.add(GOOD)
    path = tmp_path / RESULTS
    path.write_text(path.read_text() + '{"candidate": "geom')
    assert list(ResultFile(tmp_path, ASKED).results.values()) == [GOOD]
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(ConfigError, match="line 1 is damaged"):
        ResultFile(tmp_path, ASKED)


def test_an_evaluation_of_something_else_is_not_mixed_in(tmp_path: Path):
    ResultFile(tmp_path, ASKED)
    with pytest.raises(ConfigError, match="engine 'stepped', and asked is 'fast'; give another folder"):
        ResultFile(tmp_path, {**ASKED, "engine": "fast"})


def test_candidates_are_checkpoints_or_types(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name / "last").mkdir(parents=True)
    found = candidates_of([str(tmp_path / "one" / "last"), "still", "geometric"])
    assert [each.name for each in found] == ["one-last", "still", "geometric"]
    assert found[0].words == ("--policy.checkpoint", str(tmp_path / "one" / "last"))
    assert found[1].words == ("--policy.type", "still")
    of_lerobot = tmp_path / "two" / "checkpoints" / "last" / "pretrained_model"
    of_lerobot.mkdir(parents=True)
    (of_lerobot / "config.json").write_text('{"type": "act", "input_features": {}}')
    (its,) = candidates_of([str(of_lerobot)])
    assert its.words == ("--policy.type", "lerobot", "--policy.path", str(of_lerobot))
    assert its.name == "two-last", "and not as every other that LeRobot trained"
    with pytest.raises(ConfigError, match=r"nonsense: neither a checkpoint .* nor a policy type \(.*still"):
        candidates_of(["nonsense"])
    with pytest.raises(ConfigError, match="given twice"):
        candidates_of(["still", "still"])


def test_the_command_line(tmp_path: Path):
    words = [
        "--policy",
        "geometric",
        "--control",
        "still",
        "--scenes",
        "3",
        "--seed",
        "7",
        "--to",
        str(tmp_path),
    ]
    asked = read([*words, "--world.objects", "3"])
    assert asked.seeds == (7, 8, 9)
    assert asked.words == ("--config", "config.toml", "--world.objects", "3")
    with pytest.raises(ConfigError, match="unexpected argument 'nonsense'"):
        read([*words, "nonsense"])
    with pytest.raises(ConfigError, match="at least 1"):
        read([*words, "--scenes", "0"])


def test_scenes_are_played_candidate_by_candidate_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = read(["--policy", "geometric", "--control", "still", "--scenes", "2", "--to", str(tmp_path)])
    file = ResultFile(tmp_path, asked.comparable())
    file.add(GOOD)
    tasks = [(task.candidate.name, task.seed) for task in tasks_of(asked, file)]
    assert tasks == [("still", 10_000), ("geometric", 10_001), ("still", 10_001)]
    told: list[SceneResult] = []

    def play(task: SceneTask) -> SceneResult:
        inside = 2 * (task.candidate.name == "geometric")
        return SceneResult(task.candidate.name, task.seed, 4, inside)

    monkeypatch.setattr("dexrun.evaluation.playing.play_run", play)
    play_all(replace(asked, jobs=2), file, told.append)
    assert sorted((each.candidate, each.seed) for each in told) == sorted(tasks)
    assert tasks_of(asked, file) == []
    text = report(asked, file)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["candidates"]["still"]["objects"]["rate"] == 0.0
    assert summary["candidates"]["geometric"]["objects"]["successes"] == 6
    assert "geometric and still" in text


def test_a_run_says_how_it_ended():
    summary = {
        "outcome": "incomplete",
        "stop_reason": "time limit",
        "duration_s": 30.0,
        "starved_ticks": 2,
        "clips": {"velocity": 1},
        "policy": {"inference_s": {"p50": 0.1, "max": 0.2}},
        "attempts": [{"instruction": "a cube", "attempt": 1, "grasped": True, "completed": False}],
        "judge": {"objects_total": 3, "objects_in_tray": 2, "success": False},
    }
    found = from_summary(SceneResult("a", 1), summary)
    assert (found.objects_total, found.objects_in_tray, found.success) == (3, 2, False)
    assert (found.why, found.drops, found.starved_ticks) == ("time limit", 1, 2)
    assert from_summary(SceneResult("a", 1), {"stop_reason": "no arm"}).error == "no judge: no arm"


def test_a_configuration_that_is_refused_is_an_error_and_no_failure(tmp_path: Path):
    candidate = scenes.Candidate("still", ("--policy.type", "still"))
    task = SceneTask(candidate, 1, ("--config", str(tmp_path / "none.toml")), tmp_path)
    found = play_run(task)
    assert found.error.startswith("exit 2: ")
    assert "none.toml" in found.error


def test_trials_that_a_person_labelled():
    episode = {"why": "", "duration_s": 9.0}
    summary = {
        "rollout": {"episodes": [{**episode, "outcome": each} for each in ("success", "failure", "none")]}
    }
    found = labelled("act", summary)
    assert [(each.seed, each.success, each.objects_in_tray) for each in found] == [
        (0, True, 1),
        (1, False, 0),
    ]


def test_trials_that_did_not_begin_are_not_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the next policy's arm move once somebody has ended this one's trials."""
    began: list[str] = []

    def rollout(command: list[str]) -> int:
        """The first one is ended after a trial; the second one does not begin."""
        runs = Path(command[command.index("--runs") + 1])
        began.append(runs.name)
        if len(began) > 1:
            return 2
        (runs / "one").mkdir(parents=True)
        (runs / "latest").symlink_to("one")
        episode = {"outcome": "success", "why": "key", "duration_s": 9.0}
        (runs / "one" / "summary.json").write_text(json.dumps({"rollout": {"episodes": [episode]}}))
        return 1

    monkeypatch.setattr(trials, "_ended", rollout)
    asked = read(["--policy", "still", "--compare", "geometric", "--engine", "arm", "--scenes", "3"])
    file = ResultFile(tmp_path, asked.comparable())
    trials.play_trials(asked, file, lambda result: None)
    assert (began, list(file.results)) == (["still"], [("still", 10_000)])
    with pytest.raises(ConfigError, match=r"the rollout of still did not begin \(exit code 2\)"):
        trials.play_trials(asked, file, lambda result: None)
    assert list(file.results) == [("still", 10_000)]
