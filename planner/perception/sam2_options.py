"""Tables of the networks of SAM 2's kind."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from planner.perception.sam2_families import FAMILIES
from planner.perception.weights import ModelFolder
from runtime.interfaces import PerceptionError
from runtime.options import Options
from runtime.packages import missing
from runtime.parts import SegmenterTable, TrackerTable


class Sam2Options(Options):
    """What a segmenter and a tracker of SAM 2's kind have in common.

    Attributes:
        path: the folder of the checkpoint: ``config.json`` and ``model.safetensors``, such as that of
            ``facebook/sam2.1-hiera-tiny``, of EdgeTAM, or of SAM 3. Nothing is fetched.
        device: ``cpu``, ``cuda``, ``cuda:1``... On a CPU a picture takes 5 to 11 seconds.
        precision: of the network; ``bfloat16`` is what the model was trained with.
        compile: use ``torch.compile`` on the network that looks at the picture.
    """

    path: Path
    device: str = "cpu"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False


class Sam2SegmenterOptions(SegmenterTable, Sam2Options):
    """SAM 2, SAM 2.1, EdgeTAM or the tracker of SAM 3, from a box or clicks to a mask.

    Attributes:
        multimask: whether the best by its own score of three masks is taken, which tells a part from the
            whole where a click may mean either; otherwise its one mask.
    """

    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "safetensors")
    extra: ClassVar[str] = "perception"

    type: Literal["sam2"] = "sam2"
    multimask: bool = True

    def check_files(self) -> None:
        self.folder()

    def folder(self) -> ModelFolder:
        """The checkpoint.

        Raises:
            PerceptionError: it is not there, or of another kind.
        """
        return _opened("perception.segmenter.path", self.path, FAMILIES, "segmenter of SAM 2's kind")


class Sam2TrackerOptions(TrackerTable, Sam2Options):
    """SAM 2, SAM 2.1, EdgeTAM or the tracker of SAM 3, from frame to frame, with bounded memory.

    Attributes:
        remembered_prompts: of the frames with a prompt, so many are remembered, the first and the newest; of
            other frames the newest 16, as the network itself looks back.
    """

    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "safetensors")
    extra: ClassVar[str] = "perception"

    type: Literal["sam2"] = "sam2"
    remembered_prompts: int = Field(default=4, ge=2, le=64)

    def check_files(self) -> None:
        self.folder()

    def folder(self) -> ModelFolder:
        """The checkpoint.

        Raises:
            PerceptionError: it is not there, of another kind, or one without memory.
        """
        kinds = [kind for kind, family in FAMILIES.items() if family.video]
        what = "tracker of SAM 2's kind (one with a memory)"
        return _opened("perception.tracker.path", self.path, kinds, what)


def _opened(key: str, path: Path, kinds: Collection[str], what: str) -> ModelFolder:
    folder = ModelFolder.open(key, path, kinds, what)
    packages = FAMILIES[folder.kind].packages
    who = f"{key} = {str(folder.path)!r}: a model of type {folder.kind!r}"
    if why := missing(who, packages, "perception"):
        raise PerceptionError(f"{why.partition(': pip ')[0]}: pip install {' '.join(packages)}")
    return folder
