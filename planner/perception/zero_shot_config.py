"""The detectors of `transformers` as parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from planner.perception.zero_shot_options import GroundingDinoOptions, Owlv2Options

if TYPE_CHECKING:
    from planner.perception.zero_shot import GroundingDino, Owlv2

_PACKAGES = ("torch", "transformers", "safetensors")


class GroundingDinoConfig(GroundingDinoOptions):
    """Finds objects by phrases: Grounding DINO, MM-Grounding-DINO, LLMDet. Seconds an answer on a CPU."""

    packages: ClassVar[tuple[str, ...]] = _PACKAGES
    extra: ClassVar[str] = "perception"

    def check_files(self) -> None:
        from planner.perception.zero_shot_folder import detector_folder

        detector_folder(self)

    def build(self) -> GroundingDino:
        from planner.perception.zero_shot_load import load_grounding_dino

        return load_grounding_dino(self)


class Owlv2Config(Owlv2Options):
    """Finds objects by phrases: OWLv2, OWL-ViT. Seconds an answer on a CPU."""

    packages: ClassVar[tuple[str, ...]] = _PACKAGES
    extra: ClassVar[str] = "perception"

    def check_files(self) -> None:
        from planner.perception.zero_shot_folder import detector_folder

        detector_folder(self)

    def build(self) -> Owlv2:
        from planner.perception.zero_shot_load import load_owlv2

        return load_owlv2(self)
