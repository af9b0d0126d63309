"""Detection by words, with networks of `transformers` that were never trained on these very words.

Grounding DINO (Liu et al., ECCV 2024), MM-Grounding-DINO and LLMDet read all phrases in one text, and score
every box against each of its words; OWLv2 (Minderer et al., NeurIPS 2023) scores a box against each phrase.
Both answers go through the processor's own post-processing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.perception.zero_shot_options import GroundingDinoOptions, Owlv2Options, ZeroShotOptions
from runtime.interfaces import Box, Detection, PerceptionError
from runtime.messages import ColorImage

Scores = NDArray[np.float32]
Found = tuple[Scores, Scores, Sequence[int]]
"""Boxes ``[N, 4]`` in pixels, scores ``[N]``, and for each box which phrase it is of; -1: of none."""
_LEAST_SIDE_PX = 1.0


class ZeroShotDetector:
    """Implements `Detector`.

    Args:
        model, processor: of one checkpoint; `device` and `dtype` are the model's.
    """

    def __init__(self, options: ZeroShotOptions, model: Any, processor: Any) -> None:
        self._options = options
        self._model = model
        self._processor = processor
        self._device, self._dtype = model.device, model.dtype
        from planner.perception.zero_shot_pictures import DetectorPictures

        self._pictures = DetectorPictures(processor.image_processor, self._device)

    def detect(self, image: ColorImage, phrases: Sequence[str]) -> Sequence[Detection]:
        """See `Detector.detect`. All phrases are asked for in one pass of the network."""
        asked = [asked_for(phrase) for phrase in phrases]
        if not asked:
            return ()
        import torch

        with torch.inference_mode():
            boxes, scores, whose = self._found(image, asked)
        if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
            raise PerceptionError(f"the detector {self._options.path} answers with what is no number")
        height, width = image.shape[:2]
        kept: list[Detection] = []
        counts = [0] * len(asked)
        for at in np.argsort(-scores, kind="stable").tolist():
            box = _inside(boxes[at], width, height)
            phrase = whose[at]
            if box is not None and phrase >= 0 and counts[phrase] < self._options.per_phrase:
                counts[phrase] += 1
                kept.append(Detection(box, float(scores[at]), phrases[phrase]))
        return kept

    def _answer(self, **inputs: Any) -> Any:
        """What the network makes of them."""
        moved = {key: each.to(self._device) for key, each in inputs.items()}
        pixels = moved["pixel_values"] = moved["pixel_values"].to(self._dtype)
        if not pixels.isfinite().all():
            raise PerceptionError(
                f"the processor of {self._options.path} makes what is no number of pictures: are its "
                "image_mean, image_std and rescale_factor right?"
            )
        return self._model(**moved)

    @abstractmethod
    def _found(self, image: ColorImage, phrases: Sequence[str]) -> Found:
        """Every box over the threshold."""


class GroundingDino(ZeroShotDetector):
    """Asks for all phrases in one text, ``red cup. blue cube.``, and scores boxes by its words."""

    def __init__(self, options: GroundingDinoOptions, model: Any, processor: Any) -> None:
        super().__init__(options, model, processor)
        self._threshold, self._text_threshold = options.box_threshold, options.text_threshold
        self._longest = int(model.config.max_text_len)

    def _found(self, image: ColorImage, phrases: Sequence[str]) -> Found:
        text = " ".join(f"{phrase}." for phrase in phrases)
        inputs = {**self._processor(text=text, return_tensors="pt"), **self._pictures(image)}
        ids = inputs["input_ids"]
        words = self._words(ids[0].tolist(), phrases)
        answer = self._answer(**inputs)
        (found,) = self._processor.post_process_grounded_object_detection(
            answer,
            ids,
            threshold=self._threshold,
            text_threshold=self._text_threshold,
            target_sizes=[image.shape[:2]],
        )
        probable = answer.logits[0].sigmoid()  # compared in the network's own precision, as there
        kept = probable[probable.max(dim=-1)[0] > self._threshold].float().cpu().numpy()
        whose = np.full(len(kept), -1)
        scores = np.zeros(len(kept), np.float32)
        for number, (begin, end) in enumerate(words):
            of_words = kept[:, begin:end]
            mean = of_words.mean(axis=1)
            better = (of_words.max(axis=1) > self._text_threshold) & (mean > scores)
            whose[better], scores[better] = number, mean[better]
        return found["boxes"].float().cpu().numpy(), scores, whose.tolist()

    def _words(self, ids: Sequence[int], phrases: Sequence[str]) -> list[tuple[int, int]]:
        """Where the words of each phrase begin and end in the text."""
        if len(ids) > self._longest:
            raise PerceptionError(
                f"{len(phrases)} phrases are {len(ids)} tokens; the detector reads {self._longest} at once"
            )
        stop = self._processor.tokenizer.convert_tokens_to_ids(".")
        ends = [at for at, each in enumerate(ids) if each == stop]
        if len(ends) != len(phrases):
            raise PerceptionError(f"the tokenizer of {self._options.path} does not tell the phrases apart")
        words = list(zip([1, *(end + 1 for end in ends[:-1])], ends, strict=True))
        for phrase, (begin, end) in zip(phrases, words, strict=True):
            if begin == end:
                raise PerceptionError(
                    f"{phrase!r} is no phrase to look for: the tokenizer reads nothing in it"
                )
        return words


class Owlv2(ZeroShotDetector):
    """Each phrase as a text of its own."""

    def __init__(self, options: Owlv2Options, model: Any, processor: Any) -> None:
        super().__init__(options, model, processor)
        self._threshold, self._template = options.box_threshold, options.template
        self._longest = int(model.config.text_config.max_position_embeddings)
        processor.tokenizer.model_max_length = self._longest  # to which texts are filled up

    def _found(self, image: ColorImage, phrases: Sequence[str]) -> Found:
        texts = [self._template.replace("{}", phrase) for phrase in phrases]
        for text in texts:
            if (tokens := len(self._processor.tokenizer(text)["input_ids"])) > self._longest:
                raise PerceptionError(f"{text!r} is {tokens} tokens; the detector reads {self._longest}")
        inputs = {**self._processor(text=[texts], return_tensors="pt"), **self._pictures(image)}
        answer = self._answer(**inputs)
        (found,) = self._processor.post_process_grounded_object_detection(
            answer, threshold=self._threshold, target_sizes=[image.shape[:2]]
        )
        boxes, scores = (found[key].float().cpu().numpy() for key in ("boxes", "scores"))
        return boxes, scores, found["labels"].tolist()


def asked_for(phrase: str) -> str:
    """`phrase` as the networks were trained on: in lower case, without what ends a phrase.

    Raises:
        PerceptionError: nothing is left of it.
    """
    shown = "".join(each for each in phrase if each.isspace() or each.isprintable())
    words = " ".join(shown.lower().replace(".", " ").replace("?", " ").split())
    if not words:
        raise PerceptionError(f"{phrase!r} is no phrase to look for")
    return words


def _inside(corners: Scores, width: int, height: int) -> Box | None:
    """The part of a box that is in the picture; ``None`` if there is none."""
    x1, y1, x2, y2 = np.clip(corners, 0, (width, height, width, height)).tolist()
    return (x1, y1, x2, y2) if min(x2 - x1, y2 - y1) >= _LEAST_SIDE_PX else None
