"""Which commands a page can start, and with what: nothing else of a command line can be reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dexrun.panel.server import arguments as a
from dexrun.panel.server.arguments import JobArgument
from dexrun.panel.server.places import BadArgumentError, Places


@dataclass(frozen=True, slots=True)
class JobKind:
    """A command.

    Attributes:
        name: as the page says it. words: of the command line, before its arguments.
        arguments: what it takes.
        moves: whether it moves an arm or takes its port, so that no two of them run at a time.
        asks: whether a person answers it, at a terminal of its own.
    """

    name: str
    words: tuple[str, ...]
    arguments: tuple[JobArgument, ...]
    moves: bool = False
    asks: bool = False

    def command(self, places: Places, given: Mapping[str, Any]) -> list[str]:
        """The command line for `given`, by the arguments' names.

        Raises:
            BadArgumentError: one is unknown, missing or cannot be used; which.
        """
        known = {each.name for each in self.arguments}
        if unknown := sorted(set(given) - known):
            raise BadArgumentError(
                f"{self.name} has no {unknown[0][:40]!r}; it has {', '.join(sorted(known))}"
            )
        words = list(self.words)
        for each in self.arguments:
            value = given.get(each.name)
            if value is None or value == "":
                if each.needed:
                    raise BadArgumentError(f"{self.name} needs {each.name}")
                continue
            try:
                words += each.words(places, value)
            except BadArgumentError as error:
                raise BadArgumentError(f"{each.name}: {error}") from None
        return words

    def as_json(self) -> dict[str, Any]:
        """For a page that makes a form of it."""
        takes = [
            {"name": each.name, "kind": each.kind, "needed": each.needed, "many": each.many}
            for each in self.arguments
        ]
        return {"kind": self.name, "moves": self.moves, "asks": self.asks, "arguments": takes}


def _count(name: str, option: str, high: int, low: int = 1, *, needed: bool = False) -> JobArgument:
    return JobArgument(name, option, a.number(low, high), "whole", needed)


def _share(name: str, option: str, high: float = 1.0) -> JobArgument:
    return JobArgument(name, option, a.number(0, high, whole=False), "number")


def _text(name: str, option: str) -> JobArgument:
    return JobArgument(name, option, a.text, "text")


def _choice(name: str, option: str, *names: str, needed: bool = False) -> JobArgument:
    return JobArgument(name, option, a.one_of(names), "|".join(names), needed)


def _flag(name: str, option: str) -> JobArgument:
    return JobArgument(name, option, a.text, "flag", flag=True)


_CONFIG = JobArgument("config", "--config", a.configuration, "config")
_DATA = JobArgument("data", "", a.there, "data", needed=True)
_SEVERAL = JobArgument("data", "", a.there, "data", needed=True, many=True)
_EPISODES = JobArgument("episodes", "--episodes", a.episodes, "episodes")
_LABELS = JobArgument("labels", "--labels", a.one_of(("success", "failure", "none")), "success|failure|none")
_TO_DATA = JobArgument("to", "--to", a.new_data, "new data")
_TO_NEW_DATA = JobArgument("to", "--to", a.new_data, "new data", needed=True)
_TO_PICTURES = JobArgument("to", "--to", a.new_output, "new output")
_PORT = JobArgument("port", "--port", a.serial_port, "port", needed=True)
_FROM = JobArgument("from", "--from", a.there, "folder")
_MODEL = _choice("model", "--model", "so101", "so100", needed=True)
_CALIBRATION = JobArgument("calibration", "--calibration", a.calibration, "calibration")
_POLICY = JobArgument("policy", "--policy", a.checkpoint_or_type, "policy", needed=True)
_FORMATS = ("lerobot-v3", "lerobot-v2.1", "dexgrasp-zarr", "umi-zarr", "act-hdf5", "dexvla-hdf5")
_TRAINED = ("act", "dexgrasp", "lift")
"""What needs no more than data; others are trained by a configuration of their own."""

_RUN = (
    _CONFIG,
    _choice("mode", "--mode", "grasp", "teleop", "rollout"),
    _text("prompt", "--prompt"),
    _text("task", "--task"),
    _count("count", "--episodes", 10_000),
    JobArgument("policy", "--policy.type", a.policy_type, "policy type"),
    JobArgument("checkpoint", "--policy.checkpoint", a.there, "checkpoint"),
    JobArgument("resume", "--recording.resume", a.there, "data"),
    _count("seed", "--world.seed", 1 << 31, 0),
)
_COLLECT = (
    _count("episodes", "--episodes", 1_000_000, needed=True),
    _TO_NEW_DATA,
    _CONFIG,
    _count("seed", "--seed", 1 << 31, 0),
    _count("jobs", "--jobs", 16),
    _share("looks", "--looks"),
    JobArgument("dagger", "--dagger", a.there, "checkpoint"),
    _share("beta", "--beta"),
    _share("noise", "--noise", 10.0),
)
_TRAIN = (
    JobArgument("data", "--data", a.there, "data", needed=True),
    JobArgument("to", "--to", a.new_output, "new output", needed=True),
    JobArgument("config", "--config", a.configuration, "training config"),
    _choice("policy", "--policy.type", *_TRAINED),
    _count("steps", "--steps", 10_000_000, needed=True),
    _count("batch", "--batch", 4096),
    _share("lr", "--optimizer.lr"),
    _count("log_every", "--log_every", 100_000),
    _count("save_every", "--save_every", 1_000_000),
    _choice("device", "--device", "auto", "cpu"),
)
_EVAL = (
    _POLICY,
    JobArgument("compare", "--compare", a.checkpoint_or_type, "policy"),
    JobArgument("control", "--control", a.policy_types, "text"),
    _count("scenes", "--scenes", 10_000),
    _count("objects", "--world.objects", 8),
    _count("seed", "--seed", 1 << 31, 0),
    _choice("engine", "--engine", "stepped", "fast", "real"),
    _count("jobs", "--jobs", 16),
    JobArgument("to", "--to", a.new_output, "new output", needed=True),
    _CONFIG,
    _flag("keep", "--keep"),
)
_EXPORT = (
    JobArgument("runs", "", a.there, "data", needed=True, many=True),
    _choice("format", "--format", *_FORMATS, needed=True),
    _TO_NEW_DATA,
    _count("fps", "--fps", 240),
)
_RELABEL = (
    _DATA,
    _EPISODES,
    _text("task", "--task"),
    _choice("label", "--label", "success", "failure", "none"),
)
_CALIBRATE = (
    _PORT,
    JobArgument("name", "--name", a.word, "name", needed=True),
    _MODEL,
    _flag("check", "--check"),
)
_JOINTS = (_PORT, _MODEL, _CALIBRATION, _flag("let_go", "--let-go"))

KINDS: Mapping[str, JobKind] = {
    kind.name: kind
    for kind in (
        JobKind("run", (), _RUN, moves=True),
        JobKind("collect", ("collect",), _COLLECT),
        JobKind("check", ("data", "check"), (_DATA,)),
        JobKind("drop", ("data", "drop"), (_DATA, _EPISODES, _LABELS, _TO_DATA)),
        JobKind("keep", ("data", "keep"), (_DATA, _EPISODES, _LABELS, _TO_DATA)),
        JobKind("undo", ("data", "undo"), (_DATA,)),
        JobKind("merge", ("data", "merge"), (_SEVERAL, _TO_NEW_DATA)),
        JobKind("relabel", ("data", "relabel"), _RELABEL),
        JobKind("export", ("export",), _EXPORT),
        JobKind("train", ("train",), _TRAIN),
        JobKind(
            "resume",
            ("train",),
            (JobArgument("folder", "--resume", a.there, "output", needed=True), _TRAIN[4]),
        ),
        JobKind("eval", ("eval",), _EVAL),
        JobKind("doctor", ("doctor",), (_CONFIG,), moves=True),
        JobKind("find-cameras", ("find-cameras",), (_TO_PICTURES,), moves=True),
        JobKind("find-ports", ("find-ports",), (_FROM,), moves=True, asks=True),
        JobKind("setup-motors", ("setup-motors",), (_PORT, _MODEL), moves=True, asks=True),
        JobKind("calibrate", ("calibrate",), _CALIBRATE, moves=True, asks=True),
        JobKind("joints", ("joints",), _JOINTS, moves=True, asks=True),
        JobKind(
            "init",
            ("init",),
            (JobArgument("to", "--to", a.new_config, "new config"), _FROM, _flag("simulated", "--simulated")),
            moves=True,
            asks=True,
        ),
    )
}
