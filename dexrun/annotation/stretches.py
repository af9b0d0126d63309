"""Which frames are followed from which anchor, in which direction: pure functions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from runtime.interfaces import Point, Prompt
from runtime.recording.annotations import Anchor


@dataclass(frozen=True, slots=True)
class Stretch:
    """Frames that are followed from one anchor in one direction: the unit of work.

    It depends on nothing but its anchor, its frames and the models, so it may be done anywhere, again, and at
    the same time as others.

    Attributes:
        anchor: number of the anchor. first, last: the frames, the anchor's own first; backwards if `last` is
            smaller. kept: whether the first frame's mask is this stretch's (not its twin's).
    """

    anchor: int
    first: int
    last: int
    kept: bool = True

    @property
    def frames(self) -> range:
        """In the order in which they are followed."""
        step = 1 if self.last >= self.first else -1
        return range(self.first, self.last + step, step)

    @property
    def masks(self) -> range:
        """The frames whose masks it gives."""
        return self.frames if self.kept else self.frames[1:]

    def key(self, anchors: Sequence[Anchor], models: Mapping[str, Any]) -> str:
        """What its masks depend on, as a name."""
        said = [self.anchor, anchors[self.anchor].as_json(), self.first, self.last, self.kept, dict(models)]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def stretches(anchors: Sequence[Anchor], frames: int) -> list[Stretch]:
    """Every frame of so many once: forwards and backwards from each anchor, to where a neighbour's begins.

    Between two anchors the one that was given later says where: a correction counts as far as masks were
    doubtful around it, and from there on in the direction in which its neighbour did not come.
    """
    order = sorted(range(len(anchors)), key=lambda number: anchors[number].frame)
    begins = [0, *(_between(anchors, a, b) for a, b in pairwise(order)), frames]
    found: list[Stretch] = []
    for number, (begin, end) in zip(order, pairwise(begins), strict=True):
        frame = anchors[number].frame
        if begin < frame:
            found.append(Stretch(number, frame, begin, kept=False))
        found.append(Stretch(number, frame, end - 1))
    return found


def _between(anchors: Sequence[Anchor], one: int, other: int) -> int:
    """The first frame after anchor `one` that is anchor `other`'s, the next one."""
    first, second = anchors[one], anchors[other]
    wanted = second.since if other > one else first.until + 1
    return min(max(wanted, first.frame + 1), second.frame)


def corrected(anchors: Sequence[Anchor], correction: Anchor, low: Collection[int]) -> tuple[Anchor, ...]:
    """The anchors with one more, which takes the place of one in the same frame."""
    since = until = correction.frame
    doubtful = set(low)
    while since - 1 in doubtful:
        since -= 1
    while until + 1 in doubtful:
        until += 1
    others = tuple(each for each in anchors if each.frame != correction.frame)
    return (*others, replace(correction, since=since, until=until))


def prompt_of(anchor: Anchor) -> Prompt:
    """What the segmenter is told of the object in the anchor's frame."""
    return Prompt(anchor.box, tuple(Point(x, y, inside) for x, y, inside in anchor.points))


def owners(anchors: Sequence[Anchor], frames: int) -> list[int]:
    """Of every frame, the number of the anchor that its mask comes from."""
    found = [0] * frames
    for stretch in stretches(anchors, frames):
        for frame in stretch.masks:
            found[frame] = stretch.anchor
    return found


def runs_of(frames: Sequence[int]) -> list[str]:
    """Ascending numbers in words: ``17-59``."""
    starts = [n for n, frame in enumerate(frames) if n == 0 or frames[n - 1] != frame - 1]
    ends = [*(start - 1 for start in starts[1:]), len(frames) - 1]
    pairs = [(frames[a], frames[b]) for a, b in zip(starts, ends, strict=True)] if frames else []
    return [str(a) if a == b else f"{a}-{b}" for a, b in pairs]
