"""How well masks agree with the simulated world's ground truth, over scenes (``python -m bench.perception``).

Cut out: every object that is whole in the head camera's picture, from the box around it, as a planner would
mark it. Followed: the first object through one attempt of the geometric policy, at ten pictures a second,
while the arm moves through the picture, covers it, grasps it and lifts it. The judge alone sees the truth:
which geom each pixel shows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexrun.gym.asking import Pace
from dexrun.gym.attempts import Worker
from dexrun.gym.defaults import default_settings, lighter
from dexrun.gym.engine import TableEngine, configured_pictures
from dexrun.gym.sight import box_of
from drivers.world.scene import object_body
from planner.perception.config import PerceptionConfig
from runtime.interfaces import PerceptionError, Prompt, Segmenter
from runtime.messages import Mask

_CAMERA = "head"
_LEAST_PX = 20
"""Of which less is to be seen is a sliver."""
_COVERED = 0.5
"""Of which less is to be seen than of the first picture is under the arm."""
_EVERY = 3
_LIMIT_TICKS = 600


@dataclass
class Agreement:
    """What was measured of one backend.

    Attributes:
        cut: intersection over union of every object cut out. refused: objects that were not.
        followed: of every picture with at least half of the object in view. covered: with less of it, under
            the arm.
        slivers: of pictures with a pixel to `_LEAST_PX` of it in view.
        hidden: pictures in which nothing of it was to be seen; called_hidden: those in which it was said so.
        elsewhere: pictures in which less of the mask was the object's than was not.
        missed: pictures with half of the object in view that were said to be without it.
    """

    cut: list[float] = field(default_factory=list)
    refused: int = 0
    followed: list[float] = field(default_factory=list)
    covered: list[float] = field(default_factory=list)
    slivers: list[float] = field(default_factory=list)
    elsewhere: int = 0
    hidden: int = 0
    called_hidden: int = 0
    missed: int = 0
    cut_s: list[float] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """For one JSON line."""
        return {
            "objects": len(self.cut) + self.refused,
            "refused": self.refused,
            "cut_iou": spread(self.cut),
            "cut_ms_median": round(1e3 * float(np.median(self.cut_s)), 1) if self.cut_s else None,
            "pictures": len(self.followed),
            "followed_iou": spread(self.followed),
            "covered": len(self.covered),
            "covered_iou": spread(self.covered),
            "slivers": len(self.slivers),
            "sliver_iou": spread(self.slivers),
            "elsewhere": self.elsewhere,
            "hidden": self.hidden,
            "said_hidden": self.called_hidden,
            "missed": self.missed,
        }


def spread(values: list[float]) -> dict[str, float] | None:
    """Mean, the lowest, and the 5th percentile."""
    if not values:
        return None
    low = float(np.percentile(values, 5))
    found = {"mean": float(np.mean(values)), "p5": low, "min": min(values)}
    return {name: round(each, 3) for name, each in found.items()}


def overlap(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Intersection over union."""
    both, either = (one > 0) & (other > 0), (one > 0) | (other > 0)
    return int(both.sum()) / max(1, int(either.sum()))


class Scenes:
    """Tables by seed, with the truth about their pictures."""

    def __init__(self) -> None:
        from dexrun.policies import build_policy, policy_context

        os.environ.setdefault("LP_NUM_THREADS", "0")
        self.settings = lighter(default_settings())
        pictures = {_CAMERA: configured_pictures(self.settings)[_CAMERA]}
        self.engine = TableEngine(self.settings, pictures)
        self.engine.load(self.settings.world)
        context = policy_context(self.engine.model, self.engine.infos, self.engine.clock, self.engine.joints)
        self.policy = build_policy(self.settings.policy, context)
        self.policy.warm_up()

    def load(self, seed: int) -> None:
        """The table of `seed`, with the arm at home."""
        self.engine.load(self.settings.world.model_copy(update={"seed": seed}))

    def truth(self, index: int) -> Mask:
        """What object `index` covers of the newest picture, ``[H, W]``."""
        eyes = self.engine.eyes
        assert eyes is not None  # noqa: S101 - a scene is loaded
        eyes.frame(_CAMERA)
        renderer, view = eyes._drawn_with(_CAMERA, eyes.pictures[_CAMERA])  # noqa: SLF001 - the very same view
        eyes._pose(eyes._instant(None))  # noqa: SLF001
        owners = renderer.owners(eyes._view, view)  # noqa: SLF001
        geom = int(self.engine.table.model.geom(object_body(index)).id)
        return np.equal(owners, geom).astype(np.uint8)

    def cut(self, segmenter: Segmenter, into: Agreement) -> list[int]:
        """Cut every object out; returns those that can be."""
        eyes, table = self.engine.eyes, self.engine.table
        assert eyes is not None  # noqa: S101 - a scene is loaded
        frame, found = eyes.frame(_CAMERA), []
        for index, there in enumerate(table.present):
            box = box_of(table, index, eyes.true_infos[_CAMERA]) if there else None
            truth = self.truth(index)
            if box is None or truth.sum() < _LEAST_PX:
                continue
            began = time.perf_counter()
            try:
                mask = segmenter.segment(frame.color, Prompt(box=box)).mask
            except PerceptionError:
                into.refused += 1
                continue
            into.cut_s.append(time.perf_counter() - began)
            into.cut.append(overlap(mask, truth))
            found.append(index)
        return found

    def follow(self, index: int, perception: PerceptionConfig, into: Agreement) -> None:
        """Follow object `index` through one attempt at it."""
        engine = self.engine
        engine.settings = engine.settings.model_copy(update={"perception": perception})
        worker = Worker(engine, self.policy, Pace.of(engine.settings.policy, engine.model.names))
        whole = float(self.truth(index).sum())
        ticks = 0

        def each() -> bool:
            nonlocal ticks
            ticks += 1
            if ticks % _EVERY == 0:
                self._compare(worker, index, whole, into)
            return ticks < _LIMIT_TICKS

        worker.attempt(index, engine.table.objects[index].name, each)

    def _compare(self, worker: Worker, index: int, whole: float, into: Agreement) -> None:
        eyes = self.engine.eyes
        assert eyes is not None  # noqa: S101 - a scene is loaded
        seen = worker.sights[_CAMERA].look(eyes.frame(_CAMERA))
        truth = self.truth(index)
        visible = float(truth.sum())
        into.elsewhere += 2 * int((seen.mask & truth).sum()) < int(seen.mask.sum())
        if not visible:
            into.hidden += 1
            into.called_hidden += not seen.mask.any()
            return
        value = overlap(seen.mask, truth)
        if visible < _LEAST_PX:
            into.slivers.append(value)
            return
        if visible < _COVERED * whole:
            into.covered.append(value)
            return
        into.followed.append(value)
        into.missed += not seen.mask.any()


def measured(name: str, perception: PerceptionConfig, scenes: int, *, follow: bool) -> dict[str, Any]:
    """Masks of one backend over the scenes of the seeds 0, 1, 2..."""
    table, agreement = Scenes(), Agreement()
    segmenter = perception.segmenter.build()
    for seed in range(scenes):
        table.load(seed)
        found = table.cut(segmenter, agreement)
        if follow and found:
            table.follow(found[0], perception, agreement)
    return {"bench": "perception.masks", "backend": name, "scenes": scenes, **agreement.report()}


def lines(scenes: int, foreground: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """One for each backend that is at hand."""
    found = []
    if foreground is not None:
        from planner.perception.foreground_config import ForegroundConfig

        isnet = PerceptionConfig(segmenter=ForegroundConfig(**foreground))
        found.append(measured("foreground", isnet, scenes, follow=False))
    else:
        found.append(measured("color", PerceptionConfig(), scenes, follow=True))
    return found
