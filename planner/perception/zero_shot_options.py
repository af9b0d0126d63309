"""The tables of detectors that find what a phrase names, without having been trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from runtime.parts import DetectorTable


class ZeroShotOptions(DetectorTable):
    """What all detectors of `transformers` have in common.

    Attributes:
        path: the folder of a checkpoint as ``save_pretrained`` leaves it, with its processor and tokenizer.
            Nothing is fetched.
        device: where the network runs. precision: in what it computes; half precision is for a GPU.
        compile: whether torch compiles it, once for every size of picture: minutes at the first picture.
        box_threshold: least score of a box.
        per_phrase: how many boxes of one phrase are kept, the best first.
    """

    path: Path
    device: str = "cpu"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    box_threshold: float = Field(default=0.25, gt=0, lt=1)
    per_phrase: int = Field(default=1, ge=1, le=100)


class GroundingDinoOptions(ZeroShotOptions):
    """Finds objects by phrases: Grounding DINO, MM-Grounding-DINO, LLMDet. Seconds an answer on a processor.

    Attributes:
        box_threshold: least score of a box: that of the word that fits it best.
        text_threshold: least score of a phrase's best word for a box to be that phrase's.
    """

    type: Literal["grounding_dino"] = "grounding_dino"
    text_threshold: float = Field(default=0.25, gt=0, lt=1)


class Owlv2Options(ZeroShotOptions):
    """Finds objects by phrases: OWLv2, OWL-ViT. Seconds an answer on a processor.

    Attributes:
        template: what is asked for a phrase: ``{}`` stands for it.
    """

    type: Literal["owlv2"] = "owlv2"
    box_threshold: float = Field(default=0.1, gt=0, lt=1)
    template: str = Field(default="a photo of a {}", pattern=r"^[^{}]*\{\}[^{}]*$")
