"""Objects followed from frame to frame, by the memory of a network of SAM 2's kind."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from planner.perception.pointing import check_prompt
from planner.perception.sam2_network import Sam2Network, full_size
from planner.perception.sam2_session import Prompted, Sam2Session, Sam2Sighting
from runtime.interfaces import PerceptionError, Prompt
from runtime.messages import Frame, Mask, TrackedMask

_OBJECT = "object"


class Sam2MultiTracker:
    """Implements `MultiTracker`: all objects share what the network sees in a frame.

    Args:
        remembered_prompts: as in `Sam2TrackerOptions`.
    """

    def __init__(self, network: Sam2Network, remembered_prompts: int = 4) -> None:
        self._network = network
        self._remembered = remembered_prompts
        self._session: Sam2Session | None = None
        self._size = (0, 0)
        self._names: list[str] = []
        self._newest: tuple[str, int] | None = None

    def begin(self) -> None:
        """See `MultiTracker.begin`."""
        self._session, self._names, self._newest = None, [], None

    def update(
        self,
        frame: Frame,
        prompts: Mapping[str, Prompt | Mask] = {},
    ) -> Mapping[str, TrackedMask]:
        """See `MultiTracker.update`."""
        size = frame.color.shape[0], frame.color.shape[1]
        self._check(frame, prompts, size)
        try:
            with torch.inference_mode():
                sightings = self._step(frame, prompts, size)
                return {
                    name: self._tracked(frame, sighting)
                    for name, sighting in zip(self._names, sightings, strict=True)
                }
        except torch.OutOfMemoryError:
            self.begin()
            raise PerceptionError(
                f"out of memory on {self._network.device}: the objects are forgotten"
            ) from None
        except PerceptionError:
            self.begin()  # what is no number would be in the memory of every frame to come
            raise

    def _check(self, frame: Frame, prompts: Mapping[str, Prompt | Mask], size: tuple[int, int]) -> None:
        if self._session is None and not prompts:
            raise PerceptionError("there is nothing to follow yet: give a prompt first")
        if self._session is not None and size != self._size:
            raise PerceptionError(f"the frame is {size}, the first one was {self._size}")
        for what in prompts.values():
            if isinstance(what, Prompt):
                check_prompt(what, frame.color)
            elif what.shape != size:
                raise PerceptionError(f"a mask of {what.shape} does not belong to a frame of {size}")
            elif not what.any():
                raise PerceptionError("the mask is empty")

    def _step(
        self, frame: Frame, prompts: Mapping[str, Prompt | Mask], size: tuple[int, int]
    ) -> list[Sam2Sighting]:
        session = self._session
        if session is None:
            session = self._session = Sam2Session(self._network, size, self._remembered)
            self._size = size
        self._names += [name for name in prompts if name not in self._names]
        asked = {self._names.index(name): self._prompted(what) for name, what in prompts.items()}
        newest, self._newest = self._newest, (frame.camera, frame.stamp_ns)
        if newest == self._newest:
            return session.again(asked)
        return session.step(self._network.pixels(frame.color), asked)

    def _prompted(self, what: Prompt | Mask) -> Prompted:
        if isinstance(what, Prompt):
            return self._network.points(what, self._size)
        return self._network.square(what)

    def _tracked(self, frame: Frame, sighting: Sam2Sighting) -> TrackedMask:
        mask = full_size(sighting.logits, self._size)
        if not (math.isfinite(sighting.presence) and math.isfinite(sighting.quality)):
            raise PerceptionError("the network does not say whether it sees the object: it gives no number")
        if sighting.presence <= 0 or not mask.any():
            return TrackedMask(frame.camera, frame.stamp_ns, np.zeros(self._size, np.uint8), 0.0)
        present = 1 / (1 + math.exp(-sighting.presence))
        quality = min(1.0, max(1e-3, sighting.quality))
        return TrackedMask(frame.camera, frame.stamp_ns, mask, present * quality)


class Sam2Tracker:
    """Implements `Tracker`: one object."""

    def __init__(self, objects: Sam2MultiTracker) -> None:
        self._objects = objects

    def init(self, frame: Frame, mask: Mask) -> TrackedMask:
        """See `Tracker.init`."""
        self._objects.begin()
        return self._objects.update(frame, {_OBJECT: mask})[_OBJECT]

    def update(self, frame: Frame) -> TrackedMask:
        """See `Tracker.update`."""
        return self._objects.update(frame)[_OBJECT]

    def correct(self, frame: Frame, prompt: Prompt | Mask) -> TrackedMask:
        """Take up a mask, a box or clicks in mid-stream: for the newest frame, or for the one after it.

        Unlike after `init`, what the object looked like before is remembered.

        Raises:
            PerceptionError: as `init`.
        """
        return self._objects.update(frame, {_OBJECT: prompt})[_OBJECT]
