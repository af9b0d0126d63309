"""Assembles a policy's observation from rings, on the inference worker's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runtime.interfaces import CameraDriver, ForceDriver, PolicySpec
from runtime.messages import ArmState, Frame, Observation, TrackedMask
from runtime.ports import ArmPort
from runtime.ring import Ring, Sample
from runtime.worker import ChunkRequest


class NothingToSeeError(Exception):
    """An input that the policy needs has not delivered anything yet, or not recently enough."""


class Observer:
    """Newest of everything, except that a camera whose mask is wanted shows the mask's own frame.

    Args:
        spec: what the policy wants.
        arm: the follower.
        cameras: by name; those named in `spec` must be there.
        force: the force sensor, if any.
        tracked: the newest mask of a camera, or ``None``.
        instruction: what the policy is asked to do at present.
        max_age_ns: an older frame is refused.
    """

    def __init__(
        self,
        spec: PolicySpec,
        arm: ArmPort,
        cameras: Mapping[str, CameraDriver],
        force: ForceDriver | None,
        tracked: Callable[[str], TrackedMask | None],
        instruction: Callable[[], str],
        max_age_ns: int,
    ) -> None:
        self._spec = spec
        self._arm = arm
        self._cameras = {name: cameras[name] for name in spec.cameras}
        self._force = force
        self._tracked = tracked
        self._instruction = instruction
        self._max_age_ns = max_age_ns

    def __call__(self, request: ChunkRequest) -> Observation:
        """The observation for `request`. Copies: nothing in it changes afterwards.

        Raises:
            NothingToSeeError: no arm state, or a camera without a recent frame.
        """
        masks = {name: mask for name in self._spec.masks if (mask := self._tracked(name)) is not None}
        frames = {name: self._frame(name, masks.get(name), request.stamp_ns) for name in self._cameras}
        force = self._force.samples.newest() if self._force is not None else None
        return Observation(
            step=request.step,
            epoch=request.epoch,
            stamp_ns=request.stamp_ns,
            arm=self._arm_state(),
            frames=frames,
            masks=masks,
            force_n=None if force is None else force["force"],
            instruction=self._instruction(),
            committed=request.committed,
            frozen_steps=request.frozen_steps,
        )

    def _arm_state(self) -> ArmState:
        state = self._arm.states.newest()
        if state is None:
            raise NothingToSeeError("the arm has not reported its state yet")
        return ArmState(state.stamp_ns, state["position"], state["velocity"], state["load"])

    def _frame(self, name: str, mask: TrackedMask | None, now_ns: int) -> Frame:
        ring = self._cameras[name].frames
        sample = ring.before(mask.stamp_ns) if mask is not None else None
        if sample is None or (mask is not None and sample.stamp_ns != mask.stamp_ns):
            sample = ring.newest()
        if sample is None:
            raise NothingToSeeError(f"camera {name} has not delivered a frame yet")
        if not sample.fresh(now_ns, self._max_age_ns):
            age_ms = (now_ns - sample.stamp_ns) / 1e6
            raise NothingToSeeError(f"camera {name}: newest frame is {age_ms:.0f} ms old")
        return frame_of(name, sample, ring)


def frame_of(name: str, sample: Sample, ring: Ring) -> Frame:
    """A ring's sample as a `Frame` (no copy)."""
    return Frame(name, sample.stamp_ns, sample["color"], sample["depth"] if "depth" in ring.layout else None)
