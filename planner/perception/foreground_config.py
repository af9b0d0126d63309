"""The foreground network as a part."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from planner.perception.foreground_options import ForegroundOptions

if TYPE_CHECKING:
    from planner.perception.foreground import ForegroundSegmenter


class ForegroundConfig(ForegroundOptions):
    """Cuts the object out by a network that tells foreground from background (ISNet, ONNX)."""

    packages: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    extra: ClassVar[str] = "perception"

    def check_files(self) -> None:
        from planner.perception.onnx_file import check_network

        check_network(self.path, self.model)

    def build(self) -> ForegroundSegmenter:
        from planner.perception.foreground import ForegroundSegmenter

        return ForegroundSegmenter(self)
