"""From a box or clicks to a mask, by a network of SAM 2's kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from planner.perception.pointing import check_prompt, shown_box, shown_point
from planner.perception.sam2_network import Sam2Network, full_size
from runtime.interfaces import PerceptionError, Prompt, Segmentation
from runtime.messages import ColorImage


class Sam2Segmenter:
    """Implements `Segmenter`.

    What the network sees in a picture is kept until the next picture: another click on it costs little.
    """

    def __init__(self, network: Sam2Network, *, multimask: bool = True) -> None:
        self._network = network
        self._multimask = multimask
        self._image: ColorImage | None = None
        self._seen: list[Tensor] = []

    def segment(self, image: ColorImage, prompt: Prompt) -> Segmentation:
        """See `Segmenter.segment`. The score is the network's own estimate of the intersection over union."""
        check_prompt(prompt, image)
        size = image.shape[0], image.shape[1]
        try:
            with torch.inference_mode():
                answer = self._network.model(
                    image_embeddings=self._look(image),
                    multimask_output=self._multimask,
                    **self._asked(prompt, size),
                )
                scores = answer.iou_scores[0, 0].float()
                best = int(scores.argmax())
                mask = full_size(answer.pred_masks[0, 0, best], size)
        except torch.OutOfMemoryError:
            raise PerceptionError(f"out of memory on {self._network.device} at a picture of {size}") from None
        if not mask.any():
            raise PerceptionError(f"the network sees no object {_where(prompt)}")
        return Segmentation(mask, min(1.0, max(0.0, float(scores[best]))))

    def _look(self, image: ColorImage) -> list[Tensor]:
        if self._image is None or not np.array_equal(self._image, image):
            self._image = None
            self._seen = self._network.model.get_image_embeddings(self._network.pixels(image))
            self._image = image.copy()
        return list(self._seen)

    def _asked(self, prompt: Prompt, size: tuple[int, int]) -> dict[str, Any]:
        points = self._network.points(prompt, size)
        return {"input_points": points["point_coords"], "input_labels": points["point_labels"]}


def _where(prompt: Prompt) -> str:
    if prompt.box is not None:
        return f"in the box {shown_box(prompt.box)}"
    return "at " + " and ".join(shown_point(point) for point in prompt.points if point.inside)
