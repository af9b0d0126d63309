"""Options of a model that points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from planner.config import VlmOptions
from runtime.part_context import CameraNeed
from runtime.parts import PolicyTable


class PointingOptions(VlmOptions, PolicyTable):
    """``type = "vlm"``, for the slow half of a policy: a vision-language model is asked where the
    instruction's object is. Its thought is where that lies, how large it is and what colour it has, and the
    model's words. Where it is followed itself the arm stays where it is.

    Attributes:
        camera: whose picture the model is shown; it has depth and a pose relative to the arm.
        simulated_latency_s: on a stepped clock, how long a thought takes.
    """

    type: Literal["vlm"] = "vlm"
    camera: str = "head"
    simulated_latency_s: float = Field(default=1.0, ge=0.0, le=60.0)

    def needs_cameras(self) -> Sequence[CameraNeed]:
        return [CameraNeed("camera", self.camera, depth=True, calibration=True)]

    @property
    def remembers_episode(self) -> bool:
        return False
