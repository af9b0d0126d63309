"""``dexrun data ...``: the command line of looking into data sets, checking, editing and converting them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from dexrun.export.formats import FORMATS
from dexrun.printing import fail, say
from policies.data.dataset import DatasetError
from runtime.recording.bounds import RecordingError
from runtime.units import CONVENTIONS

_EXAMPLES = """\
examples:
  dexrun data info data/pick
  dexrun data check data/pick                                  what is wrong, in words and pictures
  dexrun data drop data/pick --episodes 3,7-9                  in place; dexrun data undo data/pick
  dexrun data keep data/pick --labels success --to data/good
  dexrun data split data/pick --share 0.1 --to data/train --rest data/held
  dexrun data merge data/monday data/tuesday --to data/all
  dexrun data trim data/pick --episodes 4 --begin-s 1.5 --end-s 9
  dexrun data relabel data/pick --episodes 4 --label failure --task "pick up the red cube"
  dexrun data convert data/pick --format lerobot-v3 --to data/pick-lerobot

What is edited without --to is edited in place: the old data set is kept in .NAME.journal beside it and comes
back with undo. Unchanged files are shared by both, so that an edit costs next to nothing.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise DatasetError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dexrun data",
        description="Data sets of every format: recordings, LeRobot v3.0 and v2.1, DexGraspVLA and UMI zarr, "
        "ACT and DexVLA HDF5.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, many: bool = False) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        if many:
            one.add_argument("paths", type=Path, metavar="DATASET", nargs="+")
        else:
            one.add_argument("path", type=Path, metavar="DATASET")
        return one

    def choosing(one: argparse.ArgumentParser) -> None:
        one.add_argument(
            "--episodes", default="", metavar="3,7-9", help="by number, as info lists them from 0"
        )
        one.add_argument("--labels", default="", help="success, failure, none; separated by commas")
        one.add_argument("--task-is", default="", metavar="TEXT", help="those with this task")

    def to(one: argparse.ArgumentParser, *, needed: bool = False) -> None:
        text = "where the new data set appears" + ("" if needed else "; without it: in place, see undo")
        one.add_argument("--to", type=Path, required=needed, metavar="DATASET", help=text)

    info = add("info", "what is inside", many=True)
    info.add_argument("--json", action="store_true", help="for programs: one JSON line for each")
    check = add("check", "what may be wrong with the episodes, in words and as a page with plots")
    check.add_argument("--report", type=Path, metavar="FILE", help="default: NAME-check.html beside it")
    check.add_argument("--json", action="store_true", help="for programs: one JSON line")
    check.add_argument("--strict", action="store_true", help="exit with 1 if anything was found")
    for name, text in (("drop", "leave episodes out"), ("keep", "leave all other episodes out")):
        one = add(name, text)
        choosing(one)
        to(one)
    split = add("split", "two data sets, drawn by seed")
    split.add_argument("--share", type=float, default=0.1, help="of the episodes in the second one (0.1)")
    split.add_argument("--seed", type=int, default=42)
    to(split, needed=True)
    split.add_argument("--rest", type=Path, required=True, metavar="DATASET", help="where the second appears")
    merge = add("merge", "one data set of several that agree in features, units and rate", many=True)
    to(merge, needed=True)
    trim = add("trim", "cut the beginning and the end off episodes")
    choosing(trim)
    trim.add_argument("--begin-s", type=float, default=0.0, help="seconds from the episode's first row")
    trim.add_argument("--end-s", type=float, help="the same; without it the episode's end")
    to(trim)
    relabel = add("relabel", "another task or label")
    choosing(relabel)
    relabel.add_argument("--task", metavar="TEXT", help="the new one")
    relabel.add_argument("--label", choices=("success", "failure", "none"), help="the new one")
    to(relabel)
    convert = add("convert", "into another format")
    convert.add_argument("--format", required=True, choices=(*FORMATS, "mcap"))
    convert.add_argument("--units", choices=CONVENTIONS, help="of joints; recordings only, as dexrun export")
    convert.add_argument("--jobs", type=int, default=0, help="processes; 0: one for each processor")
    to(convert, needed=True)
    stats = add("stats", "mean, deviation, smallest and largest of every vector")
    stats.add_argument("--json", action="store_true", help="for programs: one JSON line")
    add("undo", "take back the last edit in place")
    for name, text in (("push", "to the Hugging Face Hub"), ("pull", "from the Hugging Face Hub")):
        one = add(name, text)
        one.add_argument("--repo", required=True, metavar="OWNER/NAME")
        one.add_argument("--revision", help="branch or tag")
        if name == "push":
            one.add_argument("--private", action="store_true")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    try:
        arguments = _parser().parse_args(list(argv))
        return _commands()[arguments.command](arguments)
    except (DatasetError, RecordingError) as error:
        fail(error)
        return BAD_CONFIGURATION if getattr(error, "usage", True) else NOT_DONE
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        fail(f"not done: {what}")
        return NOT_DONE


def _commands() -> Mapping[str, Callable[[argparse.Namespace], int]]:
    from dexrun.curation import editing

    return {
        "info": _info,
        "check": _check,
        "stats": _stats,
        "drop": editing.drop,
        "keep": editing.keep,
        "split": editing.split,
        "merge": editing.merge,
        "trim": editing.trim,
        "relabel": editing.relabel,
        "undo": editing.undo_last,
        "convert": _convert,
        "push": _push,
        "pull": _pull,
    }


def _info(arguments: argparse.Namespace) -> int:
    from dexrun.data import info

    return info.main([*map(str, arguments.paths), *(["--json"] if arguments.json else [])])


def _check(arguments: argparse.Namespace) -> int:
    from dexrun.curation.checks import as_json, check, look
    from dexrun.curation.report import write_report
    from policies.data.opening import open_dataset

    dataset = open_dataset(arguments.path)
    looked = look(dataset)
    findings = check(dataset, looked)
    page = arguments.report or arguments.path.resolve().with_name(
        f"{arguments.path.resolve().name}-check.html"
    )
    write_report(page, dataset, looked, findings)
    found = sum(len(each.episodes) for each in findings)
    if arguments.json:
        say(json.dumps({"report": str(page), "episodes": len(looked), **as_json(findings, looked)}) + "\n")
    else:
        names = [f"episode {each.number}" for each in looked]
        say("".join(f"{each.line(names)}\n" for each in findings))
        say(f"{len(looked)} episodes looked at; plots and pictures: {page}\n")
    return NOT_DONE if arguments.strict and found else OK


def _stats(arguments: argparse.Namespace) -> int:
    from policies.data.opening import open_dataset

    dataset = open_dataset(arguments.path)
    vectors = [name for name, about in dataset.features.items() if len(about.shape) <= 1]
    found = {name: dataset.statistics(name) for name in vectors}
    if arguments.json:
        keys = ("mean", "std", "minimum", "maximum")
        told = {n: {**{k: getattr(s, k).tolist() for k in keys}, "count": s.count} for n, s in found.items()}
        say(json.dumps(told) + "\n")
        return OK
    for name, one in found.items():
        about = dataset.features[name]
        say(f"{name} [{about.unit or 'unit not said'}], {one.count} rows\n")
        for i in range(len(one.mean)):
            label = about.names[i] if i < len(about.names) else str(i)
            say(
                f"  {label:16} mean {one.mean[i]:10.4f}  std {one.std[i]:9.4f}  "
                f"{one.minimum[i]:10.4f} to {one.maximum[i]:10.4f}\n"
            )
    return OK


def _convert(arguments: argparse.Namespace) -> int:
    from dexrun.curation.converting import convert

    said = convert(arguments.path, arguments.format, arguments.to, arguments.units, arguments.jobs)
    say(f"{said}\n")
    return OK


def _push(arguments: argparse.Namespace) -> int:
    from dexrun.curation.hub import push

    say(f"{push(arguments.path, arguments.repo, arguments.revision, private=arguments.private)}\n")
    return OK


def _pull(arguments: argparse.Namespace) -> int:
    from dexrun.curation.hub import pull

    say(f"{pull(arguments.repo, arguments.path, arguments.revision)}\n")
    return OK
