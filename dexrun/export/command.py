"""``dexrun export RUN... --format F --to DIR``: the command line of exports."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from pydantic import ValidationError

from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from dexrun.export.errors import ExportError
from dexrun.export.formats import FORMATS, check_content, format_named
from dexrun.export.job import ExportResult, Progress, Slot, export
from dexrun.export.options import ExportOptions
from dexrun.printing import complain, fail, say
from runtime.masking import masked
from runtime.units import CONVENTIONS, translated

_LOCAL = ("vlm_url", "vlm_model", "jobs")
"""Whom pictures and the key are sent to, and how much of this machine is used: never a recording's word."""
_PLAIN = (
    "fps",
    "action",
    "head",
    "wrist",
    "codec",
    "crf",
    "depth",
    "max_stamp_error_s",
    "max_gap_s",
    "tip",
    "missing_mask",
    "masks",
    "language",
    "vlm_url",
    "vlm_model",
    "hdf5_compression",
    "equal_length",
    "image_size",
    "robot_type",
    "jobs",
)


_GAPS = 4
_OFTEN = 0.8
_STILL = 0.05
"""Of its range: a joint that moves less is as good as still."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ExportError(f"{message}; see dexrun export --help")


def _parser() -> _Parser:
    parser = _Parser(
        prog="dexrun export",
        description="Turn recordings into a data set that trainers read. Exit codes: 0 done, 1 not done, "
        "2 what was asked for cannot be exported.",
        epilog="Keys that are not given come from [export] of --config, without it from the configuration "
        "that the first run was made with, else have their defaults. Whom to ask (--vlm-url, --vlm-model) "
        "and --jobs never come from a recording. "
        "Example: dexrun export runs/latest --format lerobot-v3 --to data/mine",
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or an episode's .mcap file")
    add("--format", required=True, help=", ".join(FORMATS))
    add(
        "--to",
        required=True,
        type=Path,
        metavar="DIR",
        help="where the data set appears; must not be there yet",
    )
    add("--append", action="store_true", help="add to the LeRobot data set that is there")
    add("--config", type=Path, help="take the [export] table of this file")
    add("--fps", help="frames per second of the data set (30)")
    add("--action", help="sent, clipped, or requested targets (default: what the recording says, else sent)")
    add("--latency", action="append", default=[], metavar="SENSOR=SECONDS", help="arm, force or a camera")
    add("--cameras", help="only these, separated by commas")
    add("--labels", help="only episodes with these: success, failure, none (all but failures)")
    add("--head", help="the camera that sees the scene")
    add("--wrist", help="the camera on the gripper")
    add("--units", choices=CONVENTIONS, help="of joints and grippers, instead of the format's")
    add("--codec", help="h264 (default) or av1")
    add("--crf", help="quality of video, lower is better")
    add("--depth", help="LeRobot: video, images (lossless), both, none")
    add("--max-stamp-error-s", help="leave out episodes with a larger one")
    add("--max-gap-s", help="leave out episodes in which a sensor gave nothing for longer")
    add(
        "--tip",
        help="where the object is: feature (LeRobot), task (as a sentence), both, none (default)",
    )
    add("--missing-mask", help="DexGraspVLA: track (default), zeros, refuse")
    add("--masks", help="LeRobot v3: images (lossless), none (default)")
    add("--language", help="LeRobot v3, of sub-steps: index (default), columns (for LeRobot after 0.4.4)")
    add("--vlm-url", help="who marks the object to track; default: the embedded scene reader")
    add("--vlm-model", help="of that server")
    add("--hdf5-compression", help="none (default), lzf, gzip")
    add(
        "--equal-length",
        action="store_const",
        const="true",
        help="HDF5: repeat last rows until all are as long",
    )
    add("--image-size", help="UMI: edge in pixels (224)")
    add("--robot-type", help="LeRobot: so100_follower")
    add("--jobs", help="processes; 0 is one for each processor")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    try:
        arguments = _parser().parse_args(list(argv))
        options = options_from(arguments)
        kind = format_named(arguments.format)
        check_content(arguments.format, [key for key in _PLAIN if getattr(arguments, key) is not None])
        with _Bars() as bars:
            outcome = export(
                arguments.runs, kind, arguments.to, options, append=arguments.append, progress=bars
            )
    except ExportError as error:
        fail(error)
        return BAD_CONFIGURATION if error.usage else NOT_DONE
    except KeyboardInterrupt:
        complain("dexrun: stopped; nothing was exported\n")
        return NOT_DONE
    say(summary(outcome, options, lerobot=kind.name.startswith("lerobot")))
    return OK


def options_from(arguments: argparse.Namespace) -> ExportOptions:
    """The options: command line over the configuration's table over defaults.

    Raises:
        ExportError: one cannot be used.
    """
    given = _recorded(arguments.runs[0]) if arguments.config is None else _configured(arguments.config)
    given.update({key: getattr(arguments, key) for key in _PLAIN if getattr(arguments, key) is not None})
    for key in ("cameras", "labels"):
        if getattr(arguments, key):
            given[key] = [name.strip() for name in getattr(arguments, key).split(",")]
    if arguments.latency:
        given["latency_s"] = {**given.get("latency_s", {}), **dict(map(_latency, arguments.latency))}
    if arguments.units:
        given["units"] = arguments.units
    try:
        return ExportOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ExportError(f"export.{key} = {first['input']!r}: {first['msg'].lower()}") from None


def _latency(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        if not (name and equals):
            raise ValueError
        return name, float(value)
    except ValueError:
        raise ExportError(f"--latency {text}: expected SENSOR=SECONDS, as in head=0.03") from None


def _table(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".json":
            content: Any = json.loads(path.read_text(encoding="utf-8"))
        else:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: {error}") from None
    table = content.get("export", {})
    return table if isinstance(table, dict) else {}


def _configured(path: Path) -> dict[str, Any]:
    """The table of a file that was named; a ``.json`` is a run's, and believed no further than the run."""
    return _without_local(_table(path), path) if path.suffix == ".json" else dict(_table(path))


def _recorded(run: Path) -> dict[str, Any]:
    """The table that the run was made with, as far as it is still known."""
    path = run / "config.json"
    table = _table(path) if path.is_file() else {}
    known = _without_local({k: v for k, v in table.items() if k in ExportOptions.model_fields}, path)
    return {**known, "units": translated(known["units"])} if known.get("units") else known


def _without_local(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """`table` of a recording without what only this machine's person may say; what differs is told."""
    usual = ExportOptions()
    for key in _LOCAL:
        if key in table and table[key] != getattr(usual, key):
            said = masked(str(table[key]))[:100]
            complain(
                f"dexrun: {path}: export.{key} = {said!r} of the recording is not used; "
                f"give --{key.replace('_', '-')} or [export] in a --config of your own\n"
            )
    return {key: value for key, value in table.items() if key not in _LOCAL}


def summary(outcome: ExportResult, options: ExportOptions, *, lerobot: bool = False) -> str:
    """What was exported, for people; `lerobot`: in one of its formats."""
    lines = []
    for slot in outcome.slots:
        worst = max(slot.reports.values(), key=lambda report: report.largest_error_s)
        gaps = _gaps(slot)
        lost = ", ".join(f"{topic} {count}" for topic, count in slot.ref.drops.items())
        lines.append(
            f"{slot.ref.name}: {slot.length} rows ({slot.length / options.fps:.1f} s), "
            f"label {slot.ref.label}, largest stamp error {worst.largest_error_s * 1e3:.1f} ms ({worst.name})"
            + (f"; gaps: {'; '.join(gaps)}" if gaps else "")
            + (f"; dropped while recording: {lost}" if lost else "")
        )
    taken = outcome.slots[0].ref.shape.latencies(options)
    lines += [f"latency taken off {name}: {seconds:g} s" for name, seconds in taken.items()]
    lines += [f"left out {name}: {why}" for name, why in outcome.left_out.skipped.items()]
    lines += _repeated(outcome.slots, options.fps)
    lines += _still(outcome.slots)
    if lerobot:
        lines += _depth(outcome.slots, options)
    rows = sum(slot.length for slot in outcome.slots)
    lines.append(f"{outcome.target}: {len(outcome.slots)} episodes, {rows} rows")
    return "".join(line + "\n" for line in lines)


def _repeated(slots: Sequence[Slot], fps: float) -> list[str]:
    """Sensors that came less often than there are rows: rows then have the same sample again."""
    slowest: dict[str, float] = {}
    for slot in slots:
        for name, report in slot.reports.items():
            if 0 < report.rate_hz < _OFTEN * fps:
                slowest[name] = min(report.rate_hz, slowest.get(name, fps))
    return [
        f"{name} came {rate:.3g} times a second, and there are {fps:g} rows: "
        f"{1 - rate / fps:.0%} of them repeat its last; --fps {rate:.3g} has every sample once"
        for name, rate in slowest.items()
    ]


def _still(slots: Sequence[Slot]) -> list[str]:
    """Joints that hardly moved in any episode: whoever scales by their limits scales up their noise."""
    shape = slots[0].ref.shape
    low, high = (
        find([slot.moved[row] for slot in slots], axis=0) for row, find in ((0, np.min), (1, np.max))
    )
    ranges = shape.range_array()
    share = (high - low) / (ranges[:, 1] - ranges[:, 0])
    return [
        f"{name} hardly moves ({high[i] - low[i]:.2g} of {ranges[i, 1] - ranges[i, 0]:.3g}): a normaliser by "
        "limits makes that -1 to 1; give it a floor there"
        for i, name in enumerate(shape.joints)
        if share[i] < _STILL
    ]


def _depth(slots: Sequence[Slot], options: ExportOptions) -> list[str]:
    """What becomes of depth in LeRobot's formats is said: not all of its versions know it."""
    cameras = slots[0].ref.shape.cameras
    names = ", ".join(name for name in slots[0].ref.shape.chosen(options) if cameras[name].depth)
    if not names or options.depth == "none":
        return []
    if options.depth == "auto":
        return [f"depth of {names} is left out: LeRobot before 0.6 takes it for a camera; see --depth"]
    return [
        f"depth of {names}: LeRobot before 0.6 takes it for a colour camera, with statistics in millimetres; "
        "leave it out of a policy's input_features there"
    ]


def _gaps(slot: Slot) -> list[str]:
    """The longest ones in words, and how many there are besides."""
    every = sorted((-d, s, r.name) for r in slot.reports.values() for s, d in r.gaps)
    told = [f"{name} {-d:.2f} s at {s:.2f} s" for d, s, name in every[:_GAPS]]
    return told + ([f"and {len(every) - _GAPS} shorter ones"] if len(every) > _GAPS else [])


class _Bars(Progress):
    """Progress bars on the terminal's error stream; nothing where that is not a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task: Any = None
        self._total = 0

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def stage(self, title: str, total: int) -> None:
        """Begin a bar."""
        self._total = total
        self._task = self._progress.add_task(title, total=total)

    def at(self, done: int) -> None:
        """Move it."""
        self._progress.update(self._task, completed=min(done, self._total))
