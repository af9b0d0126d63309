"""Loads detectors of `transformers` from local folders. Imports torch: imported where one is built.

Without torchvision the processors' image side falls back to its Pillow variant by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
import transformers
from loguru import logger

from planner.perception.pretrained import checked_device, load_model, why
from planner.perception.weights import ModelFolder
from planner.perception.zero_shot import GroundingDino, Owlv2, ZeroShotDetector
from planner.perception.zero_shot_folder import TABLE, detector_folder
from planner.perception.zero_shot_options import GroundingDinoOptions, Owlv2Options, ZeroShotOptions
from runtime.interfaces import PerceptionError

D = TypeVar("D", bound=ZeroShotDetector)

_PROCESSORS = {
    "grounding-dino": "GroundingDinoProcessor",
    "mm-grounding-dino": "GroundingDinoProcessor",
    "owlv2": "Owlv2Processor",
    "owlvit": "OwlViTProcessor",
}
"""By ``model_type``. Which one it is, the folder does not say: it may name code of its own."""
_LONGEST_SIDE = 4096
"""To which pictures may be resized: a gigabyte or so for the network's first layer."""


def load_grounding_dino(options: GroundingDinoOptions) -> GroundingDino:
    """Grounding DINO, MM-Grounding-DINO or LLMDet, which has answered once.

    Raises:
        PerceptionError: it cannot be loaded, or does not answer; one line.
    """
    loaded = _loaded(options)
    return _answering(options, lambda: GroundingDino(options, *loaded))


def load_owlv2(options: Owlv2Options) -> Owlv2:
    """OWLv2 or OWL-ViT, which has answered once.

    Raises:
        PerceptionError: it cannot be loaded, or does not answer; one line.
    """
    loaded = _loaded(options)
    return _answering(options, lambda: Owlv2(options, *loaded))


def _loaded(options: ZeroShotOptions) -> tuple[Any, Any]:
    folder = detector_folder(options)
    device = checked_device(TABLE, folder, options.device, options.precision)
    processor = _processor(folder)
    model = load_model(folder, "AutoModelForZeroShotObjectDetection", device, options.precision)
    if device.type == "cpu":
        logger.warning("{} type {!r} on a CPU takes seconds for every answer", TABLE, options.type)
    return torch.compile(model) if options.compile else model, processor


def _processor(folder: ModelFolder) -> Any:
    told = f"{folder.key} = {str(folder.path)!r}"
    processors = getattr(transformers, _PROCESSORS[folder.kind])
    try:
        processor = processors.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
        known = len(processor.tokenizer)
    except Exception as error:  # what is wrong with a tokenizer's files comes as any of a dozen kinds
        raise PerceptionError(f"{told}: its processor cannot be loaded: {why(error)}") from None
    for table in ("size", "pad_size"):
        _check_sides(told, table, getattr(processor.image_processor, table, None))
    text = folder.config.get("text_config")
    used = text.get("vocab_size", 0) if isinstance(text, dict) else 0
    if isinstance(used, int) and known < used:  # without its files it is made all the same, and knows no word
        raise PerceptionError(
            f"{told}: its tokenizer knows {known} of {used} tokens: are all its files there?"
        )
    return processor


def _check_sides(told: str, table: str, size: Any) -> None:
    """Whether `size` of a picture processor, by names of sides, needs memory that there may be."""
    sides = dict(size) if isinstance(size, Mapping) else vars(size) if size else {}
    for name, side in sides.items():
        if side is not None and not (isinstance(side, int | float) and 0 < side <= _LONGEST_SIDE):
            raise PerceptionError(
                f"{told}: its processor's {table} has {name} = {str(side)[:40]}; sides are 1 to "
                f"{_LONGEST_SIDE} pixels"
            )


def _answering(options: ZeroShotOptions, made: Callable[[], D]) -> D:
    """Whatever is compiled or allocated at the first picture is so now."""
    try:
        detector = made()
        detector.detect(np.full((480, 640, 3), 128, np.uint8), ["object"])
    except PerceptionError:
        raise
    except Exception as error:  # a configuration that was changed by hand fails anywhere in the network
        raise PerceptionError(f"{TABLE} type {options.type!r} does not answer: {why(error)}") from None
    return detector
