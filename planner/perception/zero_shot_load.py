"""Loads detectors of `transformers` from local folders. Imports torch: imported where one is built.

Without torchvision the processors' image side falls back to its Pillow variant by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from loguru import logger

from planner.perception.pretrained import checked_device, load_model
from planner.perception.weights import ModelFolder
from planner.perception.zero_shot import GroundingDino, Owlv2, ZeroShotDetector
from planner.perception.zero_shot_folder import TABLE, detector_folder
from planner.perception.zero_shot_options import GroundingDinoOptions, Owlv2Options, ZeroShotOptions
from runtime.interfaces import PerceptionError


def load_grounding_dino(options: GroundingDinoOptions) -> GroundingDino:
    """Grounding DINO, MM-Grounding-DINO or LLMDet, which has answered once.

    Raises:
        PerceptionError: it cannot be loaded, or does not answer; one line.
    """
    detector = GroundingDino(options, *_loaded(options))
    _try(options, detector)
    return detector


def load_owlv2(options: Owlv2Options) -> Owlv2:
    """OWLv2 or OWL-ViT, which has answered once.

    Raises:
        PerceptionError: it cannot be loaded, or does not answer; one line.
    """
    detector = Owlv2(options, *_loaded(options))
    _try(options, detector)
    return detector


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
    processors: Any = transformers.AutoProcessor
    try:
        processor = processors.from_pretrained(folder.path, local_files_only=True)
    except Exception as error:  # what is wrong with a tokenizer's files comes as any of a dozen kinds
        why = " ".join(str(error).split())
        raise PerceptionError(f"{told}: its processor cannot be loaded: {why}") from None
    known, used = len(processor.tokenizer), folder.config.get("text_config", {}).get("vocab_size", 0)
    if known < used:  # without its files a tokenizer is made all the same, and knows no word
        raise PerceptionError(
            f"{told}: its tokenizer knows {known} of {used} tokens: are all its files there?"
        )
    return processor


def _try(options: ZeroShotOptions, detector: ZeroShotDetector) -> None:
    """Whatever is compiled or allocated at the first picture is so now."""
    try:
        detector.detect(np.full((480, 640, 3), 128, np.uint8), ["object"])
    except (RuntimeError, MemoryError, ValueError, TypeError, IndexError) as error:
        why = " ".join(str(error).split())
        raise PerceptionError(f"{TABLE} type {options.type!r} does not answer: {why}") from None
