"""A vision-language model is asked where the instruction's object is: a thought for another policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from planner.errors import PlannerError
from planner.pointing.blocking import BlockingPlanner
from planner.pointing.options import PointingOptions
from planner.questions.mark import BoundingBox, Mark
from planner.questions.question import View
from runtime.interfaces import NoAnswerError, PolicyError, PolicySpec
from runtime.messages import CameraInfo, Frame, Observation, PolicyAnswer
from runtime.pointed import POINTED, PointedObject, in_box


class PointingPolicy:
    """`runtime.interfaces.Policy` whose answers are a latent (`runtime.pointed`) and words; its rows stay
    where the arm is.

    Args:
        options: whom to ask.
        joints: of the robot.
        info: of the camera, once it is open.
    """

    def __init__(self, options: PointingOptions, joints: int, info: Callable[[], CameraInfo]) -> None:
        self._camera = options.camera
        self._info = info
        self._planner = BlockingPlanner(options)
        self.spec = PolicySpec("vlm", 1, joints=joints, cameras=(options.camera,), latent=POINTED)

    def warm_up(self) -> None:
        """Make ready to ask; nothing is asked yet.

        Raises:
            PolicyError: the embedded reader's port is in use.
        """
        try:
            self._planner.open()
        except PlannerError as error:
            raise PolicyError(str(error)) from None

    def infer(self, observation: Observation) -> PolicyAnswer:
        """A thought about the observation's picture and instruction.

        Raises:
            NoAnswerError: nothing is asked for, or it is not in the picture.
            PolicyError: the model does not answer, or the picture is missing.
        """
        frame = observation.frames.get(self._camera)
        if frame is None or frame.depth is None:
            raise PolicyError(f"vlm: no frame with depth of camera {self._camera!r} in the observation")
        if not observation.instruction:
            raise NoAnswerError("there is no instruction")
        box = self._asked(observation.instruction, frame)
        pointed = self._pointed(frame, box)
        here = np.asarray(observation.arm.position, np.float64)
        return PolicyAnswer(here[None], reasoning=_words(box, pointed), latent=pointed.as_latent())

    def _asked(self, instruction: str, frame: Frame) -> BoundingBox:
        try:
            return self._planner.ask(Mark(instruction), {View.HEAD: frame.color})
        except PlannerError as error:
            if error.kind == "no_object":
                raise NoAnswerError(error.detail) from None
            raise PolicyError(str(error)) from None

    def _pointed(self, frame: Frame, box: BoundingBox) -> PointedObject:
        try:
            pointed = in_box(frame, box.bbox_2d, self._info())
        except ValueError as error:
            raise PolicyError(f"vlm: {error}") from None
        if pointed is None:
            raise NoAnswerError("there is no depth where it is said to be")
        return pointed

    def reset(self) -> None:
        """Every answer is of its own picture."""

    def statistics(self) -> Mapping[str, int]:
        """Calls of the model, what was asked again, and what came to nothing."""
        told = self._planner.statistics()
        return {key: value for key, value in told.items() if isinstance(value, int)}

    @property
    def unready(self) -> str:
        """It needs no more time after a pause than before."""
        return ""

    def interrupt(self) -> None:
        """End a running question. From any thread."""
        self._planner.interrupt()

    def close(self) -> None:
        """Close connections and threads."""
        self._planner.close()


def _words(box: BoundingBox, pointed: PointedObject) -> str:
    x, y, z = pointed.point_m
    said = ": ".join(filter(None, (box.label, box.description)))
    return f"{said or 'it'} (at x {x:.3f}, y {y:.3f}, z {z:.3f} m)"
