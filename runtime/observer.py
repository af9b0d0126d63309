"""Assembles a policy's observation from rings, on the inference worker's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from runtime.arm_model import ArmModel
from runtime.clock import NS_PER_S, Clock
from runtime.inference import ChunkRequest, NotReadyError
from runtime.interfaces import CameraDriver, ForceDriver, PolicySpec
from runtime.messages import ArmState, Floats, Frame, Observation, Snapshot, Tip, TrackedMask
from runtime.ports import ArmPort
from runtime.ring import Ring, Sample


class Observer:
    """Newest of everything, except that a camera whose mask is wanted shows the mask's own frame.

    Args:
        spec: what the policy wants.
        arm: the follower.
        cameras: by name; those named in `spec` must be there.
        force: the force sensor, if any.
        tracked: the newest mask of a camera, or ``None``; called on the worker's thread.
        max_age_ns: an older frame is refused, and so is an older mask.
        model: for the end effectors' poses; the worker thread's own from now on.
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
        model: ArmModel | None = None,
    ) -> None:
        self._spec = spec
        self._arm = arm
        self._cameras = {name: cameras[name] for name in spec.cameras}
        self._force = force
        self._tracked = tracked
        self._max_age_ns = max_age_ns
        self._clock = clock
        self._model = model
        self._attempt: int | None = None
        self._first_ns = 0

    def __call__(self, request: ChunkRequest) -> Observation:
        """The observation for `request`. Copies: nothing in it changes afterwards.

        Raises:
            NotReadyError: no arm state or recent mask of this attempt yet; or a camera without a recent
                frame, which is a fault of the camera's and counted there.
        """
        masks = {name: self._mask(name, request.attempt) for name in self._spec.masks}
        frames = {name: self._frame(name, masks.get(name), request.stamp_ns) for name in self._cameras}
        return self._made(request, frames, masks)

    def trial(self) -> Observation:
        """What a policy sees before anything moves: the present, all of it masked, as no object is known.

        Raises:
            NotReadyError: there is no arm state, or no recent frame.
        """
        request = ChunkRequest(0, 0, np.zeros((0, self._arm_state().position.size)), 0, self._clock.now_ns())
        frames = {name: self._frame(name, None, request.stamp_ns) for name in self._cameras}
        masks = {name: _all_of(frames[name], tip=self._spec.tip) for name in self._spec.masks}
        return replace(self._made(request, frames, masks), trial=True)

    def _made(
        self, request: ChunkRequest, frames: Mapping[str, Frame], masks: Mapping[str, TrackedMask]
    ) -> Observation:
        force = self._force.samples.newest() if self._force is not None else None
        arm = self._arm_state()
        if request.attempt != self._attempt:
            self._attempt, self._first_ns = request.attempt, request.stamp_ns
        return Observation(
            step=request.step,
            epoch=request.epoch,
            stamp_ns=request.stamp_ns,
            arm=arm,
            frames=frames,
            masks=masks,
            force_n=None if force is None else force["force"],
            instruction=request.instruction,
            committed=request.committed,
            frozen_steps=request.frozen_steps,
            history=self._history(Snapshot(request.stamp_ns, arm, frames)),
            end_effector=self._poses(arm.position),
            tip=next((mask.tip for mask in masks.values() if mask.tip), None) if self._spec.tip else None,
        )

    def _history(self, present: Snapshot) -> tuple[Snapshot, ...]:
        """Earlier instants, back from the present; where a ring reaches no further, the next one again."""
        stride_ns, found = round(self._spec.history_stride_s * NS_PER_S), [present]
        for back in range(1, self._spec.history_steps):
            stamp_ns = max(present.stamp_ns - back * stride_ns, self._first_ns)
            found.append(self._earlier(stamp_ns, found[-1]) if stamp_ns < found[-1].stamp_ns else found[-1])
        return tuple(reversed(found[1:]))

    def _earlier(self, stamp_ns: int, later: Snapshot) -> Snapshot:
        state = self._arm.states.before(stamp_ns)
        arm = later.arm if state is None else _arm_state(state)
        frames = {}
        for name, camera in self._cameras.items():
            sample = camera.frames.before(stamp_ns)
            frames[name] = later.frames[name] if sample is None else frame_of(name, sample, camera.frames)
        return Snapshot(stamp_ns, arm, frames)

    def _poses(self, position: Floats) -> Mapping[str, Floats]:
        if not self._spec.end_effector or self._model is None:
            return {}
        return self._model.poses(position)

    def _arm_state(self) -> ArmState:
        state = self._arm.states.newest()
        if state is None:
            raise NotReadyError("the arm has not reported its state yet")
        return _arm_state(state)

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
        newest_ns = ring.newest_stamp_ns() or 0
        if now_ns - newest_ns > self._max_age_ns:
            raise NotReadyError(f"camera {name}: newest frame is {(now_ns - newest_ns) / 1e6:.0f} ms old")
        if mask is not None and now_ns - mask.stamp_ns > self._max_age_ns:
            age_ms = (now_ns - mask.stamp_ns) / 1e6
            raise NotReadyError(f"the object was seen last in camera {name} {age_ms:.0f} ms ago")
        return frame_of(name, sample, ring)


def _arm_state(sample: Sample) -> ArmState:
    return ArmState(sample.stamp_ns, sample["position"], sample["velocity"], sample["load"])


def _all_of(frame: Frame, *, tip: bool) -> TrackedMask:
    mask, nowhere = np.ones(frame.color.shape[:2], np.uint8), np.zeros(3)
    said = Tip(nowhere, nowhere, nowhere, frame.stamp_ns) if tip else None
    return TrackedMask(frame.camera, frame.stamp_ns, mask, 1.0, tip=said)


def frame_of(name: str, sample: Sample, ring: Ring) -> Frame:
    """A ring's sample as a `Frame` (no copy)."""
    return Frame(name, sample.stamp_ns, sample["color"], sample["depth"] if "depth" in ring.layout else None)
