"""The geometric policy: looks, plans a grasp, and says row by row how to make it.

It keeps a plan (rows of joint targets from the approach to the closed jaws) and works out from every
observation where in that plan the arm is, so that late, dropped or repeated chunks do no harm. Until the
descent it looks again each time and plans anew where the object turns out to be elsewhere; from the
descent on the arm hides the object and the plan stands. What follows the closing depends on what the
jaws met. There is no clock in here: time passes by rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from policies.geometric.estimate import ObjectEstimate
from policies.geometric.grasp import GraspCandidate, GraspPlanner
from policies.geometric.options import GeometricOptions
from policies.geometric.plan import GraspMotion, GraspMotionPlanner, Phase, joined
from policies.geometric.touch import MISS_OPENING, Touch
from policies.geometric.watch import ObjectMemory
from runtime.arm_model import ArmModel
from runtime.interfaces import NoAnswerError, PolicyError, PolicySpec
from runtime.messages import CameraInfo, Floats, Observation, PolicyAnswer, PolicyStatus

_BEHIND_ROWS = 45
_AHEAD_ROWS = 60
_ON_PLAN_RAD = 0.05
_NEAR_PLAN_RAD = 0.15
_TAIL_ROWS = 10
_LAST_LOOK_ROWS = 8
_STUCK_CALLS = 40
_SAME = 1e-9
_SLACK_RAD = 0.015
_STATUS = {"done": PolicyStatus.DONE, "failed": PolicyStatus.FAILED}


class GeometricPolicy:
    """Implements `runtime.interfaces.Policy` for one arm and one calibrated RGB-D camera.

    Attributes:
        spec: what it needs.
        phase: ``"approach"``, ``"descend"``, ``"close"``, ``"lift"``, ``"done"`` or ``"failed"``.
        failure: why, in one line, once it failed.
        grasp: the grasp being made.
    """

    def __init__(
        self, config: GeometricOptions, arm: ArmModel, camera: CameraInfo | Callable[[], CameraInfo]
    ) -> None:
        """Take an arm model for itself, and the camera or a way to ask for it once it is open."""
        self.config = config
        self._arm = arm
        self.spec = PolicySpec(
            name="geometric",
            chunk_steps=config.chunk_steps,
            joints=arm.joints,
            cameras=(config.camera,),
            masks=(config.camera,),
            rate_hz=config.rate_hz,
            tells_end=True,
            notes={"units": "radians, gripper 0 to 1"},
        )
        self._grasps = GraspPlanner(config, arm)
        self._gripper = arm.grippers[0]
        self._others, self._all = list(arm.layout.others), list(range(arm.joints))
        self._watch = ObjectMemory(config, arm, camera)
        self._touch = Touch(config, self._gripper)
        self._planner = GraspMotionPlanner(config, arm)
        self.reset()

    def reset(self) -> None:
        """Forget the object, the plan and how it ended."""
        self.phase: Phase = "approach"
        self.failure = ""
        self.grasp: GraspCandidate | None = None
        self._watch.reset()
        self._plan: GraspMotion | None = None
        self._at = 0
        self._seen_step = 0
        self._tried_harder = False
        self._waiting = 0
        self._asked = False
        self._tail = _TAIL_ROWS

    def warm_up(self) -> None:
        """Solve one inverse-kinematics problem, so that the first real one is quick."""
        self._arm.ik(self._arm.fk(self._arm.middle()), self._arm.middle())

    def statistics(self) -> Mapping[str, int]:
        """It counts nothing of its own."""
        return {}

    def close(self) -> None:
        """Nothing to release."""

    @property
    def estimate(self) -> ObjectEstimate | None:
        """The object as last seen."""
        return self._watch.estimate

    def infer(self, observation: Observation) -> PolicyAnswer:
        """Rows ``[T, D]``, T up to ``chunk_steps``; the first is for ``observation.step``.

        Done: the object is held up. Failed: the rows bring the arm away without it.

        Raises:
            PolicyError: the arm's state is unusable.
            NoAnswerError: before there is a plan, the object cannot be found in mask and depth, is out of
                reach or too wide.
            NotReadyError: where the camera stands is being measured.
        """
        self._check(observation)
        start = self._start(observation)
        if self.phase == "approach":
            try:
                self._look(observation, start)
            except PolicyError as error:
                raise NoAnswerError(str(error)) from None
        elif self._plan is not None:
            self._locate(observation, start)
        plan = self._plan
        if plan is None:
            raise PolicyError("there is no plan")
        self._follow(observation, plan)
        return PolicyAnswer(
            self._rows(observation), _STATUS.get(self.phase, PolicyStatus.RUNNING), self.failure
        )

    # --- where the arm is

    def _check(self, observation: Observation) -> None:
        position = observation.arm.position
        if position.shape != (self._arm.joints,):
            raise PolicyError(f"the arm has {position.shape[0]} joints; the model has {self._arm.joints}")
        if not np.isfinite(position).all():
            raise PolicyError("the arm's position holds NaN or infinity")

    def _start(self, observation: Observation) -> Floats:
        """The joints that the arm will have been asked for at this tick."""
        if len(observation.committed) and np.isfinite(observation.committed[0]).all():
            return np.asarray(observation.committed[0])
        start = observation.arm.position.copy()
        if self._plan is not None:
            # Where the jaw is says nothing about where it was asked to go once it holds something.
            start[self._gripper] = self._plan.rows[self._at, self._gripper]
        return start

    def _locate(self, observation: Observation, start: Floats) -> float:
        """Find the plan's row for this tick; returns how far the arm is off it."""
        plan = self._plan
        if plan is None:
            return float("inf")
        expected = self._at + max(0, observation.step - self._seen_step)
        self._seen_step = observation.step
        first = max(expected - _BEHIND_ROWS, self._floor(plan))
        if len(observation.committed):
            self._at, off = plan.nearest(start, first, expected, self._all)
            exact = min(expected, len(plan.rows) - 1)
            if float(np.abs(plan.rows[exact] - start).max()) <= off + _SAME:
                self._at = exact
            return off
        # The horizon ran dry: what was executed last is not known, only where the arm has come to. Closing
        # jaws are found by their opening, and asked to close on from there.
        joints = self._all if self.phase == "close" else self._others
        last = min(expected, self._at + _AHEAD_ROWS)
        self._at, off = plan.nearest(observation.arm.position, first, last, joints, _SLACK_RAD)
        return off

    def _floor(self, plan: GraspMotion) -> int:
        """The first row of the present phase: a plan is not gone back in."""
        return plan.phases.index(self.phase) if self.phase in plan.phases else 0

    # --- looking and planning

    def _look(self, observation: Observation, start: Floats) -> None:
        moved = self._watch.look(observation)
        estimate = self.estimate
        if estimate is None:
            self._step_aside(observation, start)
            return
        off = self._locate(observation, start) if self._plan is not None else float("inf")
        limit = _ON_PLAN_RAD if len(observation.committed) else _NEAR_PLAN_RAD
        if moved or off > limit:
            self._replan(observation, start, estimate)

    def _step_aside(self, observation: Observation, start: Floats) -> None:
        """Keep moving out of the view, or begin to."""
        if self.grasp is None and self._plan is not None:
            self._locate(observation, start)
            return
        prefix, begin, velocity = self._takeover(observation, start)
        self._plan, self.grasp = self._planner.aside(begin, velocity, prefix), None
        self._at, self._seen_step = 0, observation.step

    def _replan(self, observation: Observation, start: Floats, estimate: ObjectEstimate) -> None:
        known = self.grasp
        near = None if known is None else float(np.arctan2(known.pose[1, 1], known.pose[0, 1]))
        prefix, begin, velocity = self._takeover(observation, start)
        grasps = self._grasps.plan(estimate, self._watch.obstacles, begin, near)
        self._plan, self.grasp = self._planner.first_possible(begin, velocity, prefix, grasps)
        self._at, self._seen_step = 0, observation.step

    def _kept(self, observation: Observation) -> Floats:
        """The committed rows that a chunk must begin with: they will be executed before it arrives."""
        committed = observation.committed
        if len(committed) == 0 or not np.isfinite(committed).all():
            return np.zeros((0, self._arm.joints))
        return committed[: max(1, self.config.lead_steps, observation.frozen_steps)]

    def _takeover(self, observation: Observation, start: Floats) -> tuple[Floats, Floats, Floats]:
        """Rows that stay as they are committed, and from where, how fast, a new plan goes on."""
        kept, velocity = self._kept(observation), np.zeros(self._arm.joints)
        if 1 < len(kept) < len(observation.committed):
            velocity = (kept[-1] - kept[-2]) * self.config.rate_hz
        return kept, kept[-1] if len(kept) else start, velocity

    # --- what the phase asks for

    def _follow(self, observation: Observation, plan: GraspMotion) -> None:
        if self.phase in ("approach", "descend"):
            self.phase = plan.phases[self._at]
        if self.phase in ("descend", "close") and self._touch.presses(observation, self._contact()):
            self._fail(observation, "the fingers met something on the way down")
        elif self.phase == "close":
            self._judge_closing(observation, plan)
        elif self.phase == "lift":
            self._judge_lift(observation, plan)

    def _judge_closing(self, observation: Observation, plan: GraspMotion) -> None:
        asked = float(plan.rows[self._at, self._gripper])
        at_end = self._at >= len(plan.rows) - 1
        if self._touch.holds_object(observation, asked, self._contact()):
            held = max(0.0, min(asked, float(observation.arm.position[self._gripper]) - self.config.squeeze))
            height = self._lift_height()
            self._switch(observation, "lift", lambda start: self._planner.lift(start, held, height))
        elif at_end and self._touch.still(observation):
            self._close_further(observation, plan)
        elif at_end:
            self._waiting += 1
            if self._waiting > _STUCK_CALLS:
                self._fail(observation, "the jaws do not come to rest")

    def _close_further(self, observation: Observation, plan: GraspMotion) -> None:
        if self._tried_harder or plan.rows[-1, self._gripper] <= MISS_OPENING:
            opening = float(observation.arm.position[self._gripper])
            self._fail(observation, f"the jaws closed to {opening:.2f} on nothing")
            return
        self._tried_harder = True
        self._switch(observation, "close", lambda start: joined(self._planner.closing(start, 0.0)))

    def _judge_lift(self, observation: Observation, plan: GraspMotion) -> None:
        if self._at < len(plan.rows) - 1 or not self._touch.still(observation):
            return
        asked = float(plan.rows[-1, self._gripper])
        if self._touch.holds(observation, asked):
            self.phase = "done"
        else:
            self._fail(observation, "the object was lost on the way up")

    def _contact(self) -> float:
        """The opening at which the jaws should meet the object."""
        return self.grasp.contact if self.grasp is not None else 0.0

    def _lift_height(self) -> float:
        return self.config.table_height_m + self.config.lift_height_m

    def _switch(self, observation: Observation, phase: Phase, plan: Callable[[Floats], GraspMotion]) -> None:
        """Go on with what `plan` makes of where the committed rows end."""
        present = self._start(observation) if self._plan is None else self._plan.rows[self._at]
        kept, begin, _ = self._takeover(observation, present)
        made = plan(begin)
        self._plan = joined([(kept, phase), (made.rows, phase)])
        self.phase, self._at, self._waiting = phase, 0, 0

    def _fail(self, observation: Observation, why: str) -> None:
        self.failure = why
        opening = self.grasp.opening if self.grasp is not None else 1.0
        height = self._lift_height()
        self._switch(observation, "failed", lambda start: self._planner.retreat(start, opening, height))

    def _rows(self, observation: Observation) -> Floats:
        """What is kept of the committed rows, and how the plan goes on from there."""
        plan = self._plan
        if plan is None:
            raise PolicyError("there is no plan")
        self._seen_step = observation.step
        kept = self._kept(observation)
        row, steps = self._at, self._steps(observation)
        if len(kept):
            last = self._at + len(kept) - 1
            row = plan.nearest(kept[-1], self._at, last, self._all, _SAME)[0] + 1
        until = min(row + max(0, steps - len(kept)), self._until(plan, row))
        rows = np.concatenate([kept, plan.rows[row:until]])
        short = max(0, self._tail - len(rows))
        return np.concatenate([rows, np.repeat(rows[-1:] if len(rows) else plan.rows[-1:], short, axis=0)])

    def _until(self, plan: GraspMotion, row: int) -> int:
        """Up to which row a chunk may go: not beyond the approach before a last look from close by."""
        if self.phase != "approach" or "descend" not in plan.phases:
            return len(plan.rows)
        descent = plan.phases.index("descend")
        return descent if descent - row > _LAST_LOOK_ROWS else len(plan.rows)

    def _steps(self, observation: Observation) -> int:
        """How many rows of the plan to give at most."""
        config = self.config
        # A chunk that is over before it arrives is no use: after a starved horizon they grow.
        starved = self._asked and len(observation.committed) == 0
        self._tail = min(2 * self._tail if starved else _TAIL_ROWS, config.chunk_steps)
        self._asked = True
        if self.phase not in ("descend", "close"):
            return config.chunk_steps
        needed = max(config.careful_chunk_steps, self._tail, 2 * observation.frozen_steps + _TAIL_ROWS)
        return min(needed, config.chunk_steps)
