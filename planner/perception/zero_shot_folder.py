"""Which folders hold a detector; nothing is loaded."""

from __future__ import annotations

from planner.perception.weights import ModelFolder
from planner.perception.zero_shot_options import ZeroShotOptions

TABLE = "perception.detector"
_KINDS = {
    "grounding_dino": ("grounding-dino", "mm-grounding-dino"),
    "owlv2": ("owlv2", "owlvit"),
}


def detector_folder(options: ZeroShotOptions) -> ModelFolder:
    """The folder that the table names.

    Raises:
        PerceptionError: it is not there, or holds no detector of this type; one line.
    """
    kinds = _KINDS[options.type]
    return ModelFolder.open(f"{TABLE}.path", options.path, kinds, f"detector of type {options.type!r}")
