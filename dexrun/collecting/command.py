"""``dexrun collect``: scripted demonstrations in simulation."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from dexrun.printing import complain, say
from runtime.input_file import parse_json, read_small

if TYPE_CHECKING:
    from dexrun.collecting.jobs import Harvest
    from dexrun.collecting.scenes import CollectOptions
    from dexrun.config.settings import Settings

NOTE = "collect.json"
"""What a folder was collected with."""

_EXAMPLE = """\
example:
  dexrun collect --episodes 300 --to data/pick --jobs 2
  dexrun collect --episodes 200 --to data/corrected --dagger outputs/pick/last --seed 1000
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dexrun collect",
        description="Demonstrations on the simulated table, made by the geometric policy: one episode for "
        "every attempt at an object, labelled by the ground truth. Ends early or killed, it is gone on with "
        "by the same command.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--episodes", type=int, required=True, help="how many demonstrations")
    add("--to", type=Path, required=True, metavar="FOLDER", help="where they are written")
    add(
        "--config",
        type=Path,
        help="a configuration whose arm, world, safety and control hold; default: SO-100",
    )
    add("--seed", type=int, default=0, help="of the first scene (0); scenes count up from it")
    add("--jobs", type=int, default=1, help="processes side by side (1)")
    add("--rate", type=float, default=10.0, metavar="HZ", help="of the recorded pictures (10)")
    add("--width", type=int, default=128, help="of them (128)")
    add("--height", type=int, default=96, help="of them (96)")
    add("--oversample", type=int, default=2, help="drawn so many times larger, and averaged (2)")
    add("--no-depth", action="store_true", help="leave the depth out")
    add("--looks", type=float, default=0.0, metavar="SHARE", help="of scenes that look otherwise, 0 to 1 (0)")
    add(
        "--dagger",
        type=Path,
        metavar="CHECKPOINT",
        help="this policy drives, and the demonstrator corrects it",
    )
    add("--beta", type=float, default=0.5, help="with --dagger: how often it takes over by chance (0.5)")
    add("--noise", type=float, default=1.0, help="how much noise on what is executed; 0 for none (1)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(list(argv))
    from dexrun.config.load import ConfigError
    from dexrun.gym.engine import UnfitError
    from drivers.world.render import RenderError
    from runtime.interfaces import PolicyError

    try:
        options, settings = _asked(arguments)
        return _collect(arguments, options, settings)
    except (ConfigError, ValueError, UnfitError, PolicyError) as error:
        complain(f"dexrun collect: {_line(error)}\n")
        return BAD_CONFIGURATION
    except (OSError, RenderError) as error:
        complain(f"dexrun collect: {_line(error)}\n")
        return NOT_DONE
    except KeyboardInterrupt:
        complain("dexrun collect: stopped; the same command goes on from here\n")
        return NOT_DONE


def _asked(arguments: argparse.Namespace) -> tuple[CollectOptions, Settings]:
    from dexrun.collecting.correction import CorrectionOptions
    from dexrun.collecting.scenes import CollectOptions
    from dexrun.gym.defaults import lighter, settings_for

    _checked(arguments)
    correction = None
    if arguments.dagger is not None:
        correction = CorrectionOptions(checkpoint=arguments.dagger, beta=arguments.beta)
    options = CollectOptions(
        rate_hz=arguments.rate,
        width=arguments.width,
        height=arguments.height,
        oversample=arguments.oversample,
        depth=not arguments.no_depth,
        noise=arguments.noise,
        looks=arguments.looks,
        correction=correction,
    )
    return options, lighter(settings_for(arguments.config, arguments.dagger))


def _collect(arguments: argparse.Namespace, options: CollectOptions, settings: Settings) -> int:
    from dexrun.collecting.jobs import clean, collect
    from runtime.recording.reader import EPISODES

    folder = arguments.to / EPISODES
    _same(arguments.to, options, settings, arguments.seed)
    folder.mkdir(parents=True, exist_ok=True)
    clean(folder)
    progress = _Progress(arguments.episodes)
    harvest = collect(settings, options, folder, arguments.episodes, arguments.seed, arguments.jobs, progress)
    seconds = sum(each.seconds for each in harvest.found.values())
    say(
        f"{len(harvest.found)} demonstrations in {arguments.to}, {harvest.successes} of them a success, "
        f"{seconds / 60:.1f} minutes at {options.rate_hz:g} pictures a second\n"
    )
    return OK


def _same(to: Path, options: CollectOptions, settings: Settings, seed: int) -> None:
    """Note what is collected in `to`; what is there already must have been collected so.

    Raises:
        ValueError: it was not; which option differs.
    """
    from dexrun.collecting.scenes import as_recorded
    from dexrun.config.load import dump

    told = {"seed": seed, **options.model_dump(mode="json")}
    note = to / NOTE
    if note.is_file():
        before = parse_json(read_small(note))
        differing = [key for key in told if not isinstance(before, dict) or before.get(key) != told[key]]
        if differing:
            raise ValueError(
                f"{to} was collected with another {' and another '.join(differing)}; "
                "give the same options, or another folder"
            )
    to.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    (to / "config.json").write_text(dump(as_recorded(settings, options)) + "\n", encoding="utf-8")


def _checked(arguments: argparse.Namespace) -> None:
    for name, least in (("episodes", 1), ("jobs", 1), ("seed", 0)):
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name} {getattr(arguments, name)}: {least} or more")


def _line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg'].lower()}"
    return " ".join(str(error).split())


class _Progress:
    """One line that is written over, on a terminal; elsewhere a line now and then."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._told = 0

    def __call__(self, harvest: Harvest) -> None:
        count = min(len(harvest.found), self._wanted)
        kept = sorted(harvest.found)[: self._wanted]  # the last scene may give more than are wanted
        good = sum(harvest.found[number].label == "success" for number in kept)
        text = f"{count} of {self._wanted} demonstrations, {good} a success"
        if sys.stderr.isatty():
            complain(f"\r{text}")
            if count >= self._wanted:
                complain("\n")
        elif count - self._told >= max(1, self._wanted // 20):
            self._told = count
            complain(f"{text}\n")
