"""What is asked of an annotation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from planner.config import PlannerConfig
from planner.perception.config import PerceptionConfig
from runtime.options import Options

MOST_SECONDS = 7 * 86_400.0
"""No recording is longer."""


class AnnotateOptions(Options):
    """How episodes are annotated. Crosses to other processes as JSON.

    Attributes:
        camera: whose pictures; empty: the one that sees the scene.
        moment: when the object is named: while the gripper holds it (else in the first second, where it never
            holds anything), or at the start, or so many seconds after it.
        vlm_url, vlm_model: who names it; whom ``planner`` names if empty, and without one the scene reader's
            own eyes.
        low_confidence: masks that are less sure than this are listed for a person.
        perception, planner: the models, and how they are asked.
    """

    camera: str = ""
    moment: Literal["held", "start"] | Annotated[float, Field(ge=0, le=MOST_SECONDS)] = "held"
    vlm_url: str = Field(default="", pattern=r"^(https?://[^\s/]|$)")
    vlm_model: str = ""
    low_confidence: float = Field(default=0.5, ge=0, le=1)
    perception: PerceptionConfig = PerceptionConfig()
    planner: PlannerConfig = PlannerConfig()

    @property
    def has_vlm(self) -> bool:
        """Whether a model is asked."""
        return bool(self.vlm_url or self.planner.base_url)

    def asked(self) -> PlannerConfig:
        """Whom to ask: who is named here, else whom ``[planner]`` names."""
        if not self.vlm_url:
            return self.planner.model_copy(update={"model": self.vlm_model or self.planner.model})
        return self.planner.model_copy(update={"base_url": self.vlm_url, "model": self.vlm_model or None})

    def models(self) -> dict[str, Any]:
        """Which models make masks, with their options: what is kept with each."""
        parts = (("segmenter", self.perception.segmenter), ("tracker", self.perception.tracker))
        return {name: part.model_dump(mode="json") for name, part in parts}
