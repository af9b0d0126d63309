"""The command line of ``dexrun eval``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexrun.config.sources import ConfigError, parse_arguments
from dexrun.evaluation.scenes import Candidate
from runtime import plugins

ENGINES = ("stepped", "fast", "real", "ray", "arm")
_DESCRIPTION = """\
How often a policy does what it is asked: scenes by seed, judged by the simulation's ground truth, or trials
on a real arm, judged by a person. Any key of the configuration can be given besides (--world.objects 3).
"""
_EPILOG = """\
engines:
  stepped  whole runs on the stepped clock: the true runtime, wires, safety and splicing (the default)
  fast     the same table, control loop and safety stage in one process, many times faster
  real     whole runs in real time
  ray      whole stepped runs, on every machine of a Ray cluster
  arm      --scenes trials of a rollout on the arm that is configured; you label each by a key

examples:
  dexrun eval --policy outputs/pick/last --scenes 100 --control geometric,still
  dexrun eval --policy outputs/pick/last --compare outputs/pick/best --engine fast --jobs 2
  dexrun eval --policy outputs/pick/last --engine arm --scenes 20 --config my-arm.toml --task "pick the cube"
  dexrun eval --policy outputs/act/last --env gym_aloha/AlohaTransferCube-v0 --mapping aloha.toml
"""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is to be evaluated.

    Attributes:
        candidates: the policy first, then what it is compared with. mapping: of `env`.
        seeds: of the scenes. words: of the configuration: file and keys. keep: whether run folders stay.
    """

    candidates: tuple[Candidate, ...]
    seeds: tuple[int, ...]
    engine: str
    jobs: int
    folder: Path
    words: tuple[str, ...] = ()
    keep: bool = False
    env: str = ""
    task: str = ""
    mapping: Path | None = None

    def comparable(self) -> dict[str, Any]:
        """What results in one folder must have in common."""
        return {"engine": self.engine, "words": list(self.words), "env": self.env, "task": self.task}


def parser() -> argparse.ArgumentParser:
    """Of the command."""
    made = argparse.ArgumentParser(
        prog="dexrun eval",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    policy = "a checkpoint (folder or file), or the type of an installed policy"
    made.add_argument("--policy", required=True, metavar="CHECKPOINT|TYPE", help=policy)
    made.add_argument("--compare", default="", metavar="CHECKPOINT|TYPE", help="another on the same scenes")
    made.add_argument("--control", default="", metavar="TYPE,TYPE", help="e.g. geometric,still")
    made.add_argument("--scenes", type=int, default=100, help="how many (default 100)")
    made.add_argument("--seed", type=int, default=10_000, help="of the first scene (default 10000)")
    made.add_argument("--engine", choices=ENGINES, default="stepped")
    made.add_argument("--jobs", type=int, default=1, help="scenes side by side")
    made.add_argument("--to", type=Path, help="folder; one that holds a part of the same is gone on with")
    made.add_argument("--config", default="config.toml", metavar="FILE")
    made.add_argument("--keep", action="store_true", help="keep every run's folder, with its recording")
    made.add_argument("--env", default="", metavar="ID", help="scenes of any Gymnasium environment instead")
    made.add_argument("--mapping", type=Path, metavar="FILE", help="what that one's observations are")
    made.add_argument("--task", default="", help="what is done, for --engine arm and --env")
    return made


def read(argv: Sequence[str]) -> Evaluation:
    """What the words ask for.

    Raises:
        ConfigError: something cannot be used; one line.
    """
    given, rest = parser().parse_known_args(list(argv))
    parse_arguments(rest)  # that they are keys; which, the configuration says
    if given.scenes < 1 or given.jobs < 1 or given.seed < 0:
        raise ConfigError("--scenes and --jobs are at least 1, --seed at least 0")
    if given.env and given.engine not in ("stepped", "fast"):
        raise ConfigError(f"--env plays the environment itself; --engine {given.engine} has no part in it")
    names = [given.policy, given.compare, *given.control.split(",")]
    candidates = candidates_of([name for name in names if name])
    folder = given.to or Path("outputs") / "eval" / candidates[0].name
    return Evaluation(
        candidates=candidates,
        seeds=tuple(range(given.seed, given.seed + given.scenes)),
        engine=given.engine,
        jobs=given.jobs,
        folder=folder,
        words=("--config", given.config, *rest),
        keep=given.keep,
        env=given.env,
        task=given.task,
        mapping=given.mapping,
    )


def candidates_of(given: Sequence[str]) -> tuple[Candidate, ...]:
    """A candidate for each checkpoint or type; no two have the same name.

    Raises:
        ConfigError: one is neither, or is given twice.
    """
    found: dict[str, Candidate] = {}
    for each in given:
        made = _candidate(each)
        if made in found.values():
            raise ConfigError(f"{each} is given twice")
        name, number = made.name, 2
        while name in found:
            name, number = f"{made.name}-{number}", number + 1
        found[name] = Candidate(name, made.words)
    return tuple(found.values())


_TELLS_NOTHING = ("/", "outputs", "checkpoints", "pretrained_model")
"""Folders that every training makes: a candidate's name says of which it is."""


def _is_lerobots(folder: Path) -> bool:
    """Whether LeRobot's own training left it."""
    try:
        told = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(told, dict) and "input_features" in told


def _candidate(given: str) -> Candidate:
    path = Path(given)
    if path.exists():
        parts = [part for part in path.absolute().parts if part not in _TELLS_NOTHING]
        name = "-".join(parts[-2:]).removesuffix(".safetensors")
        if _is_lerobots(path) and not (path / "policy.json").is_file():
            return Candidate(
                _plain(name), ("--policy.type", "lerobot", "--policy.path", str(path.absolute()))
            )
        return Candidate(_plain(name), ("--policy.checkpoint", str(path.absolute())))
    types = plugins.installed().names("policy")
    if given in types:
        return Candidate(given, ("--policy.type", given))
    raise ConfigError(f"{given}: neither a checkpoint that is there nor a policy type ({', '.join(types)})")


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
