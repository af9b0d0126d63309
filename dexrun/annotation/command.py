"""``dexrun annotate RUN...``: the command line of annotations."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import math
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from dexrun.annotation.errors import AnnotateError
from dexrun.annotation.jobs import AnnotationOutcome, Job
from dexrun.annotation.options import MOST_SECONDS, AnnotateOptions
from dexrun.annotation.pipeline import Pipeline
from dexrun.annotation.processes import WorkerOptions
from dexrun.annotation.stretches import runs_of
from dexrun.annotation.worker import ROLES
from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from dexrun.printing import complain, fail, say
from policies.data.dataset import DatasetError
from policies.data.recorded import episode_files
from runtime.clock import RealClock
from runtime.recording.annotations import annotations_of
from runtime.recording.bounds import one_line

_TOLD = 12
_MOST_TRACKERS = 256
_OF_WORKERS = {"trackers", "python", "host", "patience"}
_OF_NAMING = {"moment", "vlm_url", "vlm_model", "again", "engine"}
_OF_REVIEW = {"port", "person"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise AnnotateError(f"{message}; see dexrun annotate --help")


def _parser() -> _Parser:
    parser = _Parser(
        prog="dexrun annotate",
        description="Masks, boxes, points, a phrase and sub-steps for every episode, in files beside the "
        "recordings, which stay as they are; every export then has them. Stopped or killed, the same command "
        "goes on where it was. Exit codes: 0 done, 1 not all done, 2 what was asked for cannot be done.",
        epilog="Models come from [perception], and how the model is asked from [planner], of --config. "
        "Example: dexrun annotate runs/latest; dexrun export runs/latest --format dexgrasp-zarr --to data/x",
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or an episode's .mcap file")
    add("--config", type=Path, help="take [perception] and [planner] of this file")
    add("--camera", default="", help="whose pictures (default: the one that sees the scene)")
    add(
        "--moment",
        default="held",
        metavar="held|start|SECONDS",
        help="when the object is named: while the gripper holds it (default), at the start, or then",
    )
    add(
        "--vlm-url",
        default="",
        help="who names the object; default: [planner] base_url, else the scene reader's eyes",
    )
    add("--vlm-model", default="", help="of that server")
    add("--low-confidence", type=float, default=0.5, help="masks less sure than this are listed (0.5)")
    add("--again", action="store_true", help="also what has masks already, from the beginning")
    add(
        "--engine", choices=("processes", "ray"), default="processes", help="ray: on a Ray cluster's machines"
    )
    add("--trackers", type=int, default=1, help="processes that segment and track (1)")
    add(
        "--python",
        action="append",
        default=[],
        metavar="ROLE=COMMAND",
        help=f"the Python of {', '.join(ROLES)}; may be 'ssh HOST PYTHON'",
    )
    add(
        "--host",
        action="append",
        default=[],
        metavar="ROLE=ADDRESS",
        help="where a role listens and is reached; pictures then go over ZeroMQ instead of shared memory",
    )
    add("--patience", type=float, default=300.0, help="seconds after which a silent worker is ended (300)")
    add("--review", action="store_true", help="a page on which a person corrects what is doubtful")
    add("--port", type=int, default=0, help="of the page (any)")
    add("--person", default="", help="who corrects; default: the user of this machine")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    try:
        arguments = _parser().parse_args(list(argv))
        _check_effects(arguments)
        options, workers = options_from(arguments), workers_from(arguments)
        paths = list(dict.fromkeys(path.resolve() for path in episode_files(arguments.runs)))
        with held(paths):
            if arguments.review:
                from dexrun.annotation.review import review

                return review(paths, options, arguments.port, arguments.person)
            outcome = _run(paths, options, workers, arguments)
    except (AnnotateError, DatasetError) as error:
        fail(error)
        return BAD_CONFIGURATION if getattr(error, "usage", True) else NOT_DONE
    except KeyboardInterrupt:
        complain("dexrun: stopped; the same command goes on from here\n")
        return NOT_DONE
    say(summary(outcome))
    return NOT_DONE if any(job.why != "discarded" for job in outcome.named("refused")) else OK


def _check_effects(arguments: argparse.Namespace) -> None:
    """Nothing is asked for that changes nothing.

    Raises:
        AnnotateError: something is.
    """
    usual = vars(_parser().parse_args(["x"]))
    given = {name for name, value in vars(arguments).items() if value != usual[name]} - {"runs"}
    useless, why = given & _OF_REVIEW, "without --review"
    if arguments.review:
        useless, why = given & (_OF_NAMING | _OF_WORKERS), "with --review"
    elif arguments.engine == "ray" and not useless:
        useless, why = given & _OF_WORKERS, "with --engine ray"
    for name in sorted(useless):
        raise AnnotateError(f"--{name.replace('_', '-')} has no effect {why}")


def _run(
    paths: Sequence[Path], options: AnnotateOptions, workers: WorkerOptions, arguments: argparse.Namespace
) -> AnnotationOutcome:
    if arguments.engine == "ray":
        from dexrun.annotation.on_ray import annotate_on_ray

        return annotate_on_ray(paths, options, again=arguments.again)
    return Pipeline(paths, options, workers, RealClock(), _told, again=arguments.again).run()


def _told(word: str, about: Mapping[str, Any]) -> None:
    if word == "lost":
        complain(f"dexrun: {about['why']}; its work is given to another\n")
    elif word == "job" and sys.stderr.isatty():
        complain(f"{_line(about['job'])}\n")


def options_from(arguments: argparse.Namespace) -> AnnotateOptions:
    """What is asked for.

    Raises:
        AnnotateError: it cannot be used.
    """
    given: dict[str, Any] = {
        "camera": arguments.camera,
        "moment": _moment(arguments.moment),
        "vlm_url": arguments.vlm_url,
        "vlm_model": arguments.vlm_model,
        "low_confidence": arguments.low_confidence,
    }
    try:
        if arguments.config is not None:
            given |= _configured(arguments.config)
        options = AnnotateOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise AnnotateError(f"{key} = {first['input']!r}: {first['msg'].lower()}") from None
    if options.perception.detector.type != "planner" and (options.vlm_url or options.vlm_model):
        raise AnnotateError("--vlm-url and --vlm-model have no effect with [perception] detector of --config")
    if options.vlm_model and not options.has_vlm:
        raise AnnotateError(
            "--vlm-model has no effect without --vlm-url, or base_url in [planner] of --config"
        )
    return options


def _configured(path: Path) -> dict[str, Any]:
    """The tables of the models in a configuration file."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AnnotateError(f"{path}: {one_line(error)}") from None
    return {key: content[key] for key in ("perception", "planner") if key in content}


def _moment(text: str) -> str | float:
    if text in ("held", "start"):
        return text
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MOST_SECONDS:  # nor if it is none
        raise AnnotateError(f"--moment {text}: expected held, start, or seconds from 0 to {MOST_SECONDS:g}")
    return seconds


def workers_from(arguments: argparse.Namespace) -> WorkerOptions:
    """Where the workers run.

    Raises:
        AnnotateError: there is no such role, or no such number.
    """
    if not 1 <= arguments.trackers <= _MOST_TRACKERS:
        raise AnnotateError(f"--trackers takes 1 to {_MOST_TRACKERS}")
    if not 0 < arguments.patience <= MOST_SECONDS:
        raise AnnotateError(f"--patience takes more than 0 and at most {MOST_SECONDS:g} seconds")
    if not 0 <= arguments.port <= 65535:
        raise AnnotateError(f"--port {arguments.port}: expected 0 (any) to 65535")
    pythons, hosts = (_by_role(option, getattr(arguments, option)) for option in ("python", "host"))
    return WorkerOptions(pythons, hosts, arguments.trackers, arguments.patience)


def _by_role(option: str, given: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in given:
        role, _, value = text.partition("=")
        if role not in ROLES or not value:
            raise AnnotateError(f"--{option} {text}: expected ROLE=..., with a role of {', '.join(ROLES)}")
        found[role] = value
    return found


@contextlib.contextmanager
def held(paths: Sequence[Path]) -> Iterator[None]:
    """The annotations of these recordings, for one command at a time.

    Raises:
        AnnotateError: somebody else makes them, or they cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for folder in dict.fromkeys(annotations_of(path) for path in paths):
            try:
                folder.mkdir(exist_ok=True)
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AnnotateError(f"{folder}: another command is annotating these", usage=False) from None
            except OSError as error:
                raise AnnotateError(f"{folder}: cannot be written: {error.strerror}", usage=False) from None
        yield


def summary(outcome: AnnotationOutcome) -> str:
    """What became of the episodes, for people."""
    lines = [_line(job) for job in outcome.jobs]
    done, kept, refused = (len(outcome.named(state)) for state in ("done", "kept", "refused"))
    low = sum(len(job.low) for job in outcome.jobs)
    lines.append(f"{done} episodes annotated, {kept} were already, {refused} not; {low} frames are doubtful")
    return "".join(line + "\n" for line in lines)


def _line(job: Job) -> str:
    if job.state == "refused":
        return f"{job.name}: not annotated: {job.why}"
    there = " (was already)" if job.state == "kept" else ""
    stretches = runs_of(job.low)
    shown = ", ".join(stretches[:_TOLD]) + (", ..." if len(stretches) > _TOLD else "")
    doubtful = f"; doubtful: {len(job.low)} of them ({shown})" if job.low else ""
    return f"{job.name}: {job.phrase}, {job.frames} masks{there}{doubtful}"
