"""A policy for one arm in a robot of several: it sees that arm's joints, and the others hold still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from runtime.interfaces import Policy, PolicyError, PolicySpec
from runtime.messages import ArmState, Floats, Observation, PolicyAnswer


class OneArm:
    """`runtime.interfaces.Policy` for the whole joint vector ``[D]``.

    Args:
        policy: of the arm's own joints ``[d]``.
        joints: where those are in the whole vector.
        still: ``[D]``; where the others are asked to stay.
    """

    def __init__(self, policy: Policy, joints: Sequence[int], still: Floats) -> None:
        self._policy = policy
        self._joints = list(joints)
        self._still = still.copy()
        self.spec = self._whole_spec()

    def _whole_spec(self) -> PolicySpec:
        own = self._policy.spec
        discrete = tuple(self._joints[joint] for joint in own.discrete)
        return replace(own, joints=self._still.size, discrete=discrete)

    def warm_up(self) -> None:
        """The policy's own.

        Raises:
            PolicyError: as there.
        """
        self._policy.warm_up()
        self.spec = self._whole_spec()

    def infer(self, observation: Observation) -> PolicyAnswer:
        """Rows ``[T, D]``: the arm's as its policy says, the others' the same in each.

        Raises:
            PolicyError: as the policy; or its rows are not of its arm's joints.
        """
        joints, committed = self._joints, observation.committed
        answer = self._policy.infer(
            replace(
                observation,
                arm=self._mine(observation.arm),
                committed=committed[:, joints] if committed.size else committed,
                history=tuple(replace(each, arm=self._mine(each.arm)) for each in observation.history),
            )
        )
        self.spec = self._whole_spec()
        rows = np.tile(self._still, (len(answer.rows), 1))
        if len(rows):
            own = np.asarray(answer.rows)
            if own.shape[1:] != (len(joints),):  # one column would go to every joint
                raise PolicyError(f"rows of shape {list(own.shape)}; expected [steps, {len(joints)}]")
            rows[:, joints] = own
        return replace(answer, rows=rows)

    def _mine(self, arm: ArmState) -> ArmState:
        joints = self._joints
        return ArmState(arm.stamp_ns, arm.position[joints], arm.velocity[joints], arm.load[joints])

    def reset(self) -> None:
        """Forget the episode."""
        self._policy.reset()

    def close(self) -> None:
        """Release what the policy holds."""
        self._policy.close()

    def statistics(self) -> Mapping[str, int]:
        """The policy's own."""
        return self._policy.statistics()
