"""The lift policy of the runtime: a look at the object, a chunk, and whether the attempt is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from policies.accelerate import open_device, place, set_threads
from policies.checkpoint import CheckpointError
from policies.lift.load import load_lift, random_lift
from policies.lift.memory import ObjectInSight, Remembered
from policies.lift.numbers import rows_of, size, vectors
from policies.lift.options import LiftOptions, weights_file
from policies.lift.shaping import RowShaping
from policies.nudged.arm import ArmInSight
from policies.nudged.view import DepthView
from runtime.arm_model import ArmModel
from runtime.clock import NS_PER_S
from runtime.interfaces import NoAnswerError, PolicyError, PolicySpec
from runtime.joints import JointLayout
from runtime.messages import ArmState, CameraInfo, Floats, Observation, PolicyAnswer, PolicyStatus

_MISSES = 2
"""So many answers in a row that see closed jaws end an attempt."""
_PRESSED = 0.9
"""Of the force that is permitted: an arm that gives way feels a little less."""
_STILL_RAD = 0.02
"""An arm none of whose joints has moved by more stands still."""
_SQUEEZE = 0.02
"""Jaws that are asked to close by so much further, and stand still, have something between them."""
_LIKELY, _STILL_LIKELY = 0.1, 0.02
"""Hypotheses at least so likely, compared with the likeliest, are as good as that: the nearest to what is
being done is taken. The second holds after an attempt that came to nothing."""


class LiftPolicy:
    """`runtime.interfaces.Policy` for one arm and one calibrated RGB-D camera.

    It remembers, within an attempt, the object as it was seen whole: later the arm hides it.

    Raises:
        PolicyError: checkpoint, device or robot do not fit; one line.
    """

    def __init__(
        self,
        config: LiftOptions,
        robot: JointLayout,
        camera: Callable[[], CameraInfo],
        arm_model: Callable[[], ArmModel],
    ) -> None:
        self._config = config
        self._camera = camera
        self._device = open_device(config.device)
        where = "policy.shape"
        if config.checkpoint:
            path = weights_file(config.checkpoint)
            where, self._model = str(path), load_lift(path)
            if "shape" in config.model_fields_set and config.shape != self._model.shape:
                raise CheckpointError(f"policy.shape: {where} says its own, which is another; leave it out")
        else:
            self._model = random_lift(config.shape, config.seed)
        self._shape = self._model.shape
        self._seen = config.model_copy(update={"shape": self._shape})
        if (robot.joints, robot.grippers) != (self._shape.joints, (self._shape.gripper,)):
            raise CheckpointError(
                f"{where}: made for an arm of {self._shape.joints} joints whose gripper is number "
                f"{self._shape.gripper}; this one has {robot.joints}, gripper {list(robot.grippers)}"
            )
        self.spec = PolicySpec(
            "lift",
            self._shape.chunk,
            joints=robot.joints,
            cameras=(config.camera,),
            masks=(config.camera,),
            rate_hz=config.rate_hz,
            tells_end=True,
            notes={"units": "radians, gripper 0 to 1"},
        )
        self._permitted = robot.permitted
        self._shaping = RowShaping(config, robot, arm_model)
        known = config.level and self._permitted is not None
        self._arm = ArmInSight(arm_model()) if config.place and known else None
        self._setbacks, self._done = 0, True
        self.reset()

    def reset(self) -> None:
        """Forget the object; how often nothing came of it in a row is remembered."""
        self._setbacks = 0 if self._done else self._setbacks + 1
        self._done = False
        self._object = ObjectInSight(self._seen)
        self._began_ns: int | None = None
        self._missed = 0
        self._rest: tuple[int, Floats] | None = None

    def warm_up(self) -> None:
        """Move the network to its device and run it once."""
        set_threads(self._config.threads)
        place(self._model, self._device, "float32")
        blank = np.zeros((2, self._shape.crop, self._shape.crop), np.float32)
        self._run(np.zeros((1, size(self._shape)), np.float32), blank)

    def statistics(self) -> Mapping[str, int]:
        """It counts nothing of its own."""
        return {}

    def close(self) -> None:
        """Release device memory."""
        self._model.to("cpu")
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def infer(self, observation: Observation) -> PolicyAnswer:
        """Rows ``[chunk, D]`` in the robot's units; none once the attempt has failed.

        Raises:
            PolicyError: a frame, its depth or the mask is missing, or the arm's position is unusable.
            NoAnswerError: the object has not been seen in this attempt yet.
            NotReadyError: where the camera stands is being measured.
        """
        position = np.asarray(observation.arm.position, np.float64)
        if position.shape != (self._shape.joints,) or not np.isfinite(position).all():
            raise PolicyError(f"lift: the arm's position is not {self._shape.joints} finite numbers")
        known = self._object.take(self._view(observation), partial(self._placed, observation.arm))
        if known is None:
            raise NoAnswerError("too little of the object is seen above the table")
        if why := self._failure(position):
            return PolicyAnswer(np.zeros((0, self._shape.joints)), PolicyStatus.FAILED, why)
        chunks, likely, done = self._run(self._numbers(observation, known, position), known.crop)
        if not np.isfinite(chunks).all():  # limits would make numbers of infinity
            raise PolicyError("lift: the network's rows are not all finite numbers")
        ways = np.stack([rows_of(self._shape, chunk, position) for chunk in chunks])
        rows = _chosen(ways, likely, observation.committed, self._setbacks)
        ended, gripper = done > self._config.done_above, self._shape.gripper
        over = "" if ended else self._over(observation, position)
        if rows[0, gripper] > position[gripper] - _SQUEEZE and (why := self._landed(observation) or over):
            return PolicyAnswer(np.zeros((0, self._shape.joints)), PolicyStatus.FAILED, why)
        # Where something is held, and nothing more is done with it, whoever looks will see.
        self._done = ended = ended or bool(over)
        status = PolicyStatus.DONE if ended else PolicyStatus.RUNNING
        return PolicyAnswer(self._shaping.rows(rows, observation), status)

    def _view(self, observation: Observation) -> DepthView:
        name = self._config.camera
        frame, tracked = observation.frames.get(name), observation.masks.get(name)
        if frame is None or frame.depth is None or tracked is None:
            lacking = "mask" if frame is not None and frame.depth is not None else "frame with depth"
            raise PolicyError(f"lift: no {lacking} of camera {name!r} in the observation")
        if tracked.mask.shape != frame.depth.shape:
            shapes = f"{list(tracked.mask.shape)}, the depth {list(frame.depth.shape)}"
            raise PolicyError(f"lift: the mask of camera {name!r} is {shapes}")
        return DepthView(frame.depth, tracked.mask, self._camera())

    def _placed(self, arm: ArmState, view: DepthView, info: CameraInfo) -> CameraInfo:
        return info if self._arm is None else self._arm.placed(view, info, arm)

    def _numbers(self, observation: Observation, known: Remembered, position: Floats) -> NDArray[np.float32]:
        force = np.array([self._force(observation)])
        whole, now = known.whole.numbers[None], known.now.numbers[None]
        return vectors(self._shape, position[None], whole, now, force)

    def _force(self, observation: Observation) -> float:
        force = observation.force_n
        if not self._config.use_force or force is None or not force.size or not np.isfinite(force).all():
            return float("nan")
        return float(np.abs(force).max())

    def _failure(self, position: Floats) -> str:
        """Why the attempt is over without the object, if it is."""
        opening = float(position[self._shape.gripper])
        self._missed = self._missed + 1 if opening < self._config.miss_opening else 0
        if self._missed >= _MISSES:
            return f"the jaws closed to {opening:.2f} on nothing"
        return ""

    def _landed(self, observation: Observation) -> str:
        """Why the attempt is over with fingers that came down on something, if they did.

        The arm is held there: it can do nothing of what the network asks for, but lift.
        """
        force = self._force(observation)
        if self._permitted is not None and force > _PRESSED * self._permitted.force_n:
            return f"the fingers press on something with {force:.0f} N"
        return ""

    def _over(self, observation: Observation, position: Floats) -> str:
        """Why the attempt does not go on, if so: it takes too long, or the arm has stood still."""
        now_ns = observation.stamp_ns
        if self._began_ns is None:
            self._began_ns = now_ns
        if self._rest is None or np.abs(position - self._rest[1]).max() > _STILL_RAD:
            self._rest = (now_ns, position.copy())
        if now_ns - self._began_ns > self._config.attempt_s * NS_PER_S:
            return f"no grasp within {self._config.attempt_s:g} s (policy.attempt_s)"
        if now_ns - self._rest[0] > self._config.stuck_s * NS_PER_S:
            return f"the arm has not moved for {self._config.stuck_s:g} s (policy.stuck_s)"
        return ""

    @torch.inference_mode()
    def _run(self, numbers: NDArray[np.float32], crop: NDArray[np.float32]) -> tuple[Floats, Floats, float]:
        """Chunks ``[hypotheses, T, D]`` as the network has them, how likely each is, and that all is done."""
        told = torch.from_numpy(numbers).to(self._device)
        rows, choice, end = self._model(told, torch.from_numpy(crop[None]).to(self._device))
        likely = torch.softmax(choice[0], dim=0).double().cpu().numpy()
        return self._model.restored(rows)[0].double().cpu().numpy(), likely, float(torch.sigmoid(end)[0])


def _chosen(ways: Floats, likely: Floats, committed: Floats, setbacks: int) -> Floats:
    """Of the likely ``ways[K, T, D]`` the one nearest to what is committed; without that, the likeliest.

    After a setback the second, after another the third: what failed once fails again.
    """
    least = (_LIKELY if setbacks == 0 else _STILL_LIKELY) * likely.max()
    count = min(len(committed), ways.shape[1])
    if count == 0 or not np.isfinite(committed).all():
        ranked = [way for way in np.argsort(-likely).tolist() if likely[way] >= least]
        return np.asarray(ways[ranked[setbacks % len(ranked)]])
    off = np.abs(ways[:, :count] - committed[:count]).max(axis=(1, 2))
    off[likely < least] = np.inf
    return np.asarray(ways[int(off.argmin())])
