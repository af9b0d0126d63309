"""Assembles a policy's observation from rings, on the inference worker's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from runtime.clock import Clock
from runtime.inference import ChunkRequest, NotReadyError
from runtime.interfaces import CameraDriver, ForceDriver, PolicySpec
from runtime.messages import ArmState, Frame, Observation, TrackedMask
from runtime.ports import ArmPort
from runtime.ring import Ring, Sample


class NothingToSeeError(Exception):
    """An input that the policy needs has not delivered anything recently enough."""


class Observer:
    """Newest of everything, except that a camera whose mask is wanted shows the mask's own frame.

    Args:
        spec: what the policy wants.
        arm: the follower.
        cameras: by name; those named in `spec` must be there.
        force: the force sensor, if any.
        tracked: the newest mask of a camera, or ``None``; called on the worker's thread.
        max_age_ns: an older frame is refused.
    """

    def __init__(
        self,
        spec: PolicySpec,
        arm: ArmPort,
        cameras: Mapping[str, CameraDriver],
        force: ForceDriver | None,
        tracked: Callable[[str], TrackedMask | None],
        max_age_ns: int,
        clock: Clock,
    ) -> None:
        self._spec = spec
        self._arm = arm
        self._cameras = {name: cameras[name] for name in spec.cameras}
        self._force = force
        self._tracked = tracked
        self._max_age_ns = max_age_ns
        self._clock = clock

    def __call__(self, request: ChunkRequest) -> Observation:
        """The observation for `request`. Copies: nothing in it changes afterwards.

        Raises:
            NotReadyError: no arm state, frame or mask of this attempt yet.
            NothingToSeeError: a camera without a recent frame.
        """
        masks = {name: self._mask(name, request.attempt) for name in self._spec.masks}
        frames = {name: self._frame(name, masks.get(name), request.stamp_ns) for name in self._cameras}
        return self._made(request, frames, masks)

    def trial(self) -> Observation:
        """What a policy sees before anything moves: the present, with nothing masked.

        Raises:
            NotReadyError: there is no arm state, or no recent frame.
        """
        request = ChunkRequest(0, 0, np.zeros((0, self._arm_state().position.size)), 0, self._clock.now_ns())
        try:
            frames = {name: self._frame(name, None, request.stamp_ns) for name in self._cameras}
        except NothingToSeeError as error:
            raise NotReadyError(str(error)) from None
        masks = {name: _nothing_in(frames[name]) for name in self._spec.masks}
        return self._made(request, frames, masks)

    def _made(
        self, request: ChunkRequest, frames: Mapping[str, Frame], masks: Mapping[str, TrackedMask]
    ) -> Observation:
        force = self._force.samples.newest() if self._force is not None else None
        return Observation(
            step=request.step,
            epoch=request.epoch,
            stamp_ns=request.stamp_ns,
            arm=self._arm_state(),
            frames=frames,
            masks=masks,
            force_n=None if force is None else force["force"],
            instruction=request.instruction,
            committed=request.committed,
            frozen_steps=request.frozen_steps,
        )

    def _arm_state(self) -> ArmState:
        state = self._arm.states.newest()
        if state is None:
            raise NotReadyError("the arm has not reported its state yet")
        return ArmState(state.stamp_ns, state["position"], state["velocity"], state["load"])

    def _mask(self, camera: str, attempt: int) -> TrackedMask:
        mask = self._tracked(camera)
        if mask is None or mask.attempt != attempt:
            raise NotReadyError(f"no mask of this attempt's object in camera {camera} yet")
        return mask

    def _frame(self, name: str, mask: TrackedMask | None, now_ns: int) -> Frame:
        ring = self._cameras[name].frames
        sample = ring.before(mask.stamp_ns) if mask is not None else None
        if sample is None or (mask is not None and sample.stamp_ns != mask.stamp_ns):
            sample = ring.newest()
        if sample is None:
            raise NotReadyError(f"camera {name} has not delivered a frame yet")
        if not sample.fresh(now_ns, self._max_age_ns):
            age_ms = (now_ns - sample.stamp_ns) / 1e6
            raise NothingToSeeError(f"camera {name}: newest frame is {age_ms:.0f} ms old")
        return frame_of(name, sample, ring)


def _nothing_in(frame: Frame) -> TrackedMask:
    return TrackedMask(frame.camera, frame.stamp_ns, np.zeros(frame.color.shape[:2], np.uint8), 0.0)


def frame_of(name: str, sample: Sample, ring: Ring) -> Frame:
    """A ring's sample as a `Frame` (no copy)."""
    return Frame(name, sample.stamp_ns, sample["color"], sample["depth"] if "depth" in ring.layout else None)
