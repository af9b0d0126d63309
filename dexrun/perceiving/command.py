"""``dexrun perceive``: try the models that see on one picture, by hand."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from dexrun.perceiving.errors import InputError
from dexrun.printing import fail, say

if TYPE_CHECKING:
    from dexrun.config.settings import Settings
    from dexrun.perceiving.seeing import SeenObject
    from dexrun.perceiving.view import PerceivedView
    from runtime.messages import ColorImage

_COMMAND = "dexrun perceive"
_EXAMPLES = """\
examples:
  dexrun perceive --camera head --phrase "green cube"
  dexrun perceive --image cup.jpg --phrase "red cup" --phrase plate --config mine.toml
  dexrun perceive --image cup.png --depth d.png --depth-scale 0.001 --intrinsics 615,615,320,240 --phrase cup
  dexrun perceive --episode runs/latest --at 2.5 --phrase "blue cylinder" --to seen.png
exit codes: 0 something was seen, 1 nothing was, 2 the input cannot be used
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message.removeprefix("argument "))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_COMMAND,
        usage=f"{_COMMAND} (--image FILE | --camera NAME | --episode FILE) --phrase TEXT [options]",
        description="Say and draw what the configured detector, segmenter and point in space see.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--image", type=Path, help="a PNG or JPEG file")
    add("--depth", type=Path, help="its depth: a PNG of 16 bits, or .npy (counts, or metres)")
    add("--depth-scale", type=_positive, metavar="M", help="metres in one count of the depth")
    add("--intrinsics", type=_lens, metavar="FX,FY,CX,CY[,K1,K2,P1,P2,K3]", help="of the picture, in pixels")
    add("--camera", default="", help="take a picture with it now; beside --image: the camera that took it")
    add("--episode", type=Path, help="of a recording: an .mcap file, or a run's folder (its first)")
    add("--at", type=_seconds, metavar="S", help="seconds after the episode's beginning (default 0)")
    add("--phrase", action="append", default=[], help="what to look for; may be given again")
    add(
        "--box",
        type=_box,
        metavar="X1,Y1,X2,Y2",
        help="where it is, instead of a phrase: the segmenter alone",
    )
    add("--click", type=_click, metavar="X,Y", help="a point on it, instead of a phrase")
    add("--to", type=Path, metavar="FILE", help="the drawn picture (default: perceived.png)")
    add("--json", action="store_true", help="for programs: one line of JSON")
    add(
        "--config",
        type=Path,
        metavar="FILE",
        help="the configuration (default: config.toml, where there is one)",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    if not argv:
        parser.print_help()
        return BAD_CONFIGURATION
    try:
        arguments, rest = parser.parse_known_args(list(argv))
        _asked_for_something(arguments)
        return _run(arguments, rest)
    except InputError as error:
        fail(error, _COMMAND)
    except Exception as error:
        from runtime.inference import out_of_memory

        if not out_of_memory(error):
            raise
        fail(f"out of memory: a smaller picture or model is wanted ({error})", _COMMAND)
    return BAD_CONFIGURATION


def _run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    from dexrun.perceiving import telling
    from dexrun.perceiving.drawing import drawn

    settings = _settings(arguments.config, rest)
    to = arguments.to or Path("perceived.png")
    if to.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"--to {to}: the drawn picture is a .png or a .jpg")
    shown = [given.resolve() for given in (arguments.image, arguments.depth) if given is not None]
    if to.resolve() in shown:
        raise InputError(f"{to} is what is looked at; give --to another file to draw to")
    view = _view(arguments, settings)
    finder, seen = _seen(arguments, settings, view)
    _write(to, drawn(view, seen))
    if arguments.json:
        said = {"picture": view.name, "missing": list(view.lacking), "drawn": str(to)}
        say(json.dumps({**said, "seen": [telling.as_json(each) for each in seen]}) + "\n")
        return OK if seen else NOT_DONE
    lines = [*telling.about(view), f"detector   {finder}", f"segmenter  {settings.perception.segmenter.type}"]
    for number, each in enumerate(seen, 1):
        lines += telling.described(number, each)
    if not seen:
        lines.append(f"nothing    is seen of {' or '.join(map(repr, arguments.phrase))}")
    say("".join(f"{line}\n" for line in [*lines, f"drawn      {to}"]))
    return OK if seen else NOT_DONE


def _asked_for_something(given: argparse.Namespace) -> None:
    if given.image is None and given.episode is None and not given.camera:
        raise InputError("which picture? give --image FILE, --camera NAME or --episode FILE")
    if given.image is not None and given.episode is not None:
        raise InputError("--image and --episode: one picture at a time")
    if sum(map(bool, (given.phrase, given.box, given.click))) != 1:
        raise InputError("what to look for? give --phrase TEXT, or one of --box and --click in its place")
    if empty := [phrase for phrase in given.phrase if not phrase.strip()]:
        raise InputError(f"--phrase {empty[0]!r}: an empty phrase names nothing")
    _fits_its_picture(given)


def _fits_its_picture(given: argparse.Namespace) -> None:
    """What is said of a picture must be of one of its kind, or it would have no effect."""
    if given.at is not None and given.episode is None:
        raise InputError("--at is for --episode, which is not given")
    if given.image is None:
        for flag in ("depth", "depth_scale", "intrinsics"):
            if getattr(given, flag) is not None:
                raise InputError(f"--{flag.replace('_', '-')} is for --image; the camera knows its own")
    elif given.depth is None and given.depth_scale is not None:
        raise InputError("--depth-scale is for --depth, which is not given")


def _settings(config: Path | None, rest: Sequence[str]) -> Settings:
    from dexrun.config.load import load
    from dexrun.config.sources import ConfigError
    from dexrun.gym.defaults import default_settings
    from runtime.interfaces import PerceptionError

    try:
        if config is None and not rest and not Path("config.toml").exists():
            settings = default_settings()
        else:
            settings = load(["--config", str(config or "config.toml"), *rest])
        settings.perception.check()
    except (ConfigError, PerceptionError) as error:
        raise InputError(str(error)) from None
    return settings


def _view(given: argparse.Namespace, settings: Settings) -> PerceivedView:
    from dexrun.perceiving.view import configured_camera, from_episode, from_files

    if given.image is not None:
        known = configured_camera(settings, given.camera) if given.camera else None
        return from_files(given.image, given.depth, given.depth_scale, given.intrinsics, known)
    if given.episode is not None:
        return from_episode(given.episode, given.camera, given.at or 0.0)
    from dexrun.perceiving.camera import taken_now

    return taken_now(settings, given.camera)


def _seen(given: argparse.Namespace, settings: Settings, view: PerceivedView) -> tuple[str, list[SeenObject]]:
    """Who found things, and the things."""
    from dexrun.perceiving.seeing import Finder, box_around, looked_at, segmenter_of
    from runtime.interfaces import Detection, PerceptionError, Point, Prompt

    segmenter = segmenter_of(settings)
    if given.phrase:
        finder = Finder(settings)
        found = finder.find(view.color, given.phrase)
        return finder.name, [looked_at(view, segmenter, each, Prompt(box=each.box)) for each in found]
    height, width = view.color.shape[:2]
    if given.box is not None:
        x1, y1, x2, y2 = box = given.box
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            raise InputError(f"--box {','.join(map(str, box))}: not inside the picture of {width}x{height}")
        found_by = Detection(box, math.nan, "box")
        return "not asked: the box was given", [looked_at(view, segmenter, found_by, Prompt(box=box))]
    x, y = given.click
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(f"--click {x:g},{y:g}: not inside the picture of {width}x{height}")
    prompt = Prompt(points=(Point(x, y),))
    try:
        box = box_around(segmenter.segment(view.color, prompt).mask)
    except PerceptionError as error:
        raise InputError(f"segmenter {settings.perception.segmenter.type}: {error}") from None
    clicked = looked_at(view, segmenter, Detection(box, math.nan, "click"), prompt)
    return "not asked: a click was given", [clicked]


def _write(to: Path, image: ColorImage) -> None:
    import cv2

    try:
        done, data = cv2.imencode(to.suffix, image[..., ::-1])
        if not done:
            raise OSError("it cannot be encoded")
        to.write_bytes(data.tobytes())
    except (OSError, cv2.error) as error:
        raise InputError(f"--to {to}: {getattr(error, 'strerror', None) or error}") from None


def _numbers(text: str, *counts: int) -> tuple[float, ...]:
    try:
        found = tuple(float(each) for each in text.split(","))
    except ValueError:
        found = ()
    if len(found) not in counts or not all(map(math.isfinite, found)):
        wanted = f"{' or '.join(map(str, counts))} numbers with commas between them are"
        raise argparse.ArgumentTypeError(f"{text!r}: {'one number is' if counts == (1,) else wanted} wanted")
    return found


def _lens(text: str) -> tuple[float, ...]:
    found = _numbers(text, 4, 9)
    if min(found[:2]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: fx and fy are lengths in pixels, above 0")
    return found


def _box(text: str) -> tuple[float, ...]:
    return _numbers(text, 4)


def _click(text: str) -> tuple[float, ...]:
    return _numbers(text, 2)


def _seconds(text: str) -> float:
    return _numbers(text, 1)[0]


def _positive(text: str) -> float:
    (found,) = _numbers(text, 1)
    if found <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: metres in one count, above 0 (0.001 for millimetres)")
    return found
