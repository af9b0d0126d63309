"""Models that see, in the public sizes and with random weights, as cases for `bench.perception`.

``ours`` is the part as a run asks it: a picture of 640x480 in, boxes or a mask of that size out. ``peer`` is
the same by `transformers`' own high-level call, where it has one that runs here. ``floor`` is what cannot be
left out: the network (of SAM 2 the image encoder alone), its input on the device already.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.sam2 import random_sam2
from planner.perception.config import ColorSegmenterConfig, ColorTrackerConfig
from planner.perception.foreground_config import ForegroundConfig
from planner.perception.sam2_network import Sam2Network
from planner.perception.sam2_segmenter import Sam2Segmenter
from planner.perception.sam2_tracker import Sam2MultiTracker, Sam2Tracker
from planner.perception.zero_shot import GroundingDino, Owlv2, ZeroShotDetector
from planner.perception.zero_shot_config import GroundingDinoConfig, Owlv2Config
from planner.perception.zero_shot_pictures import DetectorPictures
from runtime.interfaces import Box, PerceptionError, Point, Prompt
from runtime.messages import ColorImage, Frame, Mask
from runtime.torch_device import torch_dtype

Call = Callable[[], Any]
HEIGHT, WIDTH = 480, 640
BOX: Box = (280.0, 200.0, 360.0, 280.0)
PHRASES = ("cup", "cube")
_FEW = 10
"""Boxes that a detector is to find: random weights find none, or all."""

SWIN: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"depths": [2, 2, 6, 2], "window_size": 7, "image_size": 224},
    "base": {
        "embed_dim": 128,
        "depths": [2, 2, 18, 2],
        "num_heads": [4, 8, 16, 32],
        "window_size": 12,
        "image_size": 384,
    },
}
"""The backbones of ``IDEA-Research/grounding-dino-SIZE``."""


@dataclass
class Case:
    """One model at one task.

    Attributes:
        ours, peer, floor: each does the task once. without: why there is no `peer`.
        parameters: millions.
    """

    model: str
    task: str
    ours: Call
    floor: Call | None = None
    peer: Call | None = None
    without: str = ""
    parameters: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where and how networks run."""

    device: torch.device
    precision: str
    compiled: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and pictures."""
        return torch_dtype(self.precision)


def pictures() -> Iterator[ColorImage]:
    """A square that moves over a table, for ever."""
    noise = np.random.default_rng(0).integers(80, 110, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for step in itertools.count():
        image = noise.copy()
        left = 290 + step % 50
        image[210:270, left : left + 60] = (200, 40, 30)
        yield image


def mask() -> Mask:
    """Of the square in the first picture."""
    made = np.zeros((HEIGHT, WIDTH), np.uint8)
    made[210:270, 290:350] = 1
    return made


def millions(model: Any) -> float:
    """Weights."""
    return round(float(sum(each.numel() for each in model.parameters())) / 1e6, 1)


def _placed(model: Any, place: Place) -> Any:
    return model.eval().to(place.device, place.dtype)


# --- SAM 2


def _sam2(size: str, place: Place, *, video: bool) -> Sam2Network:
    network = random_sam2(size, str(place.device), place.precision, video=video)
    if place.compiled:
        network.model.vision_encoder.compile()
    return network


def sam2_image(size: str, place: Place) -> Iterator[Case]:
    """A box in a new picture; another click in the same one."""
    network = _sam2(size, place, video=False)
    segmenter, shown = Sam2Segmenter(network), pictures()
    pixels = network.pixels(next(shown))
    still = next(shown)

    def asked(image: ColorImage, prompt: Prompt) -> None:
        with suppress(PerceptionError):  # random weights may see nothing
            segmenter.segment(image, prompt)

    def encoded() -> None:
        with torch.inference_mode():
            network.model.get_image_embeddings(pixels)

    name, weights = f"sam2.1-hiera-{size}", millions(network.model)
    peer, without = _sam2_peer(network)
    box, click = Prompt(box=BOX), Prompt(points=(Point(320.0, 240.0),))
    yield Case(name, "image", lambda: asked(next(shown), box), encoded, peer, without, weights)
    yield Case(name, "click", lambda: asked(still, click), parameters=weights)


def _sam2_peer(network: Sam2Network) -> tuple[Call | None, str]:
    """The processor's picture, the model, the processor's masks: as its documentation has it."""
    try:
        from transformers import Sam2ImageProcessor, Sam2Processor

        processor: Any = Sam2Processor(Sam2ImageProcessor())
        shown = pictures()

        def call() -> None:
            inputs = processor(images=next(shown), input_boxes=[[list(BOX)]], return_tensors="pt")
            sizes = inputs["original_sizes"]
            inputs = inputs.to(network.device, network.dtype)
            with torch.inference_mode():
                answer = network.model(**inputs, multimask_output=True)
            processor.post_process_masks(answer.pred_masks.float().cpu(), sizes)

        call()
    except Exception as error:  # it needs torchvision, or another version of it
        return None, f"{type(error).__name__}: {' '.join(str(error).split())}"[:120]
    return call, ""


def sam2_video(size: str, place: Place) -> Iterator[Case]:
    """The next frame of a stream, with one object."""
    network = _sam2(size, place, video=True)
    tracker, shown = Sam2Tracker(Sam2MultiTracker(network)), pictures()
    stamps = itertools.count(1)
    tracker.init(Frame("head", 0, next(shown)), mask())
    pixels = network.pixels(next(shown))

    def encoded() -> None:
        with torch.inference_mode():
            network.model.get_image_features(pixels)

    name, weights = f"sam2.1-hiera-{size}", millions(network.model)
    yield Case(
        name,
        "video",
        lambda: tracker.update(Frame("head", next(stamps), next(shown))),
        encoded,
        _whole_session(network),
        parameters=weights,
    )


def _whole_session(network: Sam2Network) -> Call:
    """`transformers`' own streaming session, which keeps every frame."""
    import transformers

    shown, steps = pictures(), itertools.count(1)
    session: Any = transformers.Sam2VideoInferenceSession(
        video_height=HEIGHT,
        video_width=WIDTH,
        dtype=network.dtype,
        inference_device=network.device,
        inference_state_device=network.device,
        video_storage_device=network.device,
    )
    index = session.obj_id_to_idx(1)
    session.add_mask_inputs(index, 0, network.square(mask()))
    session.obj_with_new_inputs = [1]
    with torch.inference_mode():
        network.model(inference_session=session, frame=network.pixels(next(shown)), frame_idx=0)

    def call() -> None:
        with torch.inference_mode():
            pixels = network.pixels(next(shown))
            answer = network.model(inference_session=session, frame=pixels, frame_idx=next(steps))
            grown = torch.nn.functional.interpolate(answer.pred_masks.float(), size=(HEIGHT, WIDTH))
            (grown > 0).cpu()

    return call


# --- detectors


def grounding_dino(size: str, place: Place) -> Iterator[Case]:
    """Two phrases in one pass."""
    import transformers as library
    from transformers.models.grounding_dino import image_processing_pil_grounding_dino as images

    transformers: Any = library
    backbone = transformers.SwinConfig(out_features=["stage2", "stage3", "stage4"], **SWIN[size])
    torch.manual_seed(0)
    config = transformers.GroundingDinoConfig(backbone_config=backbone)
    model = transformers.GroundingDinoForObjectDetection(config)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *PHRASES]
    tokenizer = transformers.BertTokenizer(vocab={word: at for at, word in enumerate(words)})
    processor = transformers.GroundingDinoProcessor(images.GroundingDinoImageProcessorPil(), tokenizer)
    text = " ".join(f"{phrase}." for phrase in PHRASES)
    yield from _detector(f"grounding-dino-{size}", _placed(model, place), processor, text, place)


def owlv2(place: Place) -> Iterator[Case]:
    """Two phrases in one pass."""
    import transformers as library
    from transformers.models.owlv2 import image_processing_pil_owlv2 as images

    transformers: Any = library
    letters = [f"{letter}{end}" for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    known = [*letters, "<|startoftext|>", "<|endoftext|>", "!"]
    vocab = {piece: at for at, piece in enumerate(known)}
    ends = {"bos_token_id": len(known) - 3, "eos_token_id": len(known) - 2, "pad_token_id": len(known) - 1}
    torch.manual_seed(0)
    vision = {"image_size": 960, "patch_size": 16}
    config = transformers.Owlv2Config(text_config=ends, vision_config=vision)
    model = transformers.Owlv2ForObjectDetection(config)
    tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=16, pad_token="!")  # noqa: S106
    processor = transformers.Owlv2Processor(images.Owlv2ImageProcessorPil(), tokenizer)
    texts = [list(PHRASES)]
    yield from _detector("owlv2-base-patch16", _placed(model, place), processor, texts, place)


def _detector(name: str, model: Any, processor: Any, text: Any, place: Place) -> Iterator[Case]:
    weights = millions(model)
    if place.compiled:
        model = torch.compile(model)
    shown = pictures()
    inputs = dict(processor(images=next(shown), text=text, return_tensors="pt"))
    inputs = {key: each.to(place.device) for key, each in inputs.items()}
    inputs["pixel_values"] = inputs["pixel_values"].to(place.dtype)

    def network() -> Any:
        with torch.inference_mode():
            return model(**inputs)

    peaks = network().logits[0].float().sigmoid().max(dim=-1)[0].sort()[0]
    threshold = float(peaks[-min(_FEW, len(peaks))].clamp(1e-6, 1 - 1e-6))
    given = {"path": Path("random"), "box_threshold": threshold}
    detector: ZeroShotDetector
    if name.startswith("owl"):
        detector = Owlv2(Owlv2Config.model_validate({**given, "template": "{}"}), model, processor)
    else:
        detector = GroundingDino(GroundingDinoConfig.model_validate(given), model, processor)
    peer, without = _pipeline(model, processor, threshold, place)
    yield Case(name, "detect", lambda: detector.detect(next(shown), PHRASES), network, peer, without, weights)
    prepare, theirs = DetectorPictures(processor.image_processor, place.device), processor.image_processor
    yield Case(
        name,
        "prepare the picture",
        lambda: prepare(next(shown)),
        peer=lambda: theirs(images=next(shown), return_tensors="pt")["pixel_values"].to(place.device),
        parameters=weights,
    )


def _pipeline(model: Any, processor: Any, threshold: float, place: Place) -> tuple[Call | None, str]:
    """``pipeline("zero-shot-object-detection")``, which asks for one phrase after the other."""
    try:
        import transformers
        from PIL import Image

        made: Any = transformers.pipeline(
            "zero-shot-object-detection",
            model=model,
            tokenizer=processor.tokenizer,
            image_processor=processor.image_processor,
            device=place.device,
            dtype=place.dtype,
        )
        shown = pictures()

        def call() -> None:
            labels = [f"{phrase}." for phrase in PHRASES]
            made(Image.fromarray(next(shown)), candidate_labels=labels, threshold=threshold)

        call()
    except Exception as error:  # whatever it does not take of a model without a name
        return None, f"{type(error).__name__}: {' '.join(str(error).split())}"[:120]
    return call, ""


# --- without torch


def color() -> Iterator[Case]:
    """The backend without weights."""
    import cv2

    segmenter, tracker = ColorSegmenterConfig().build(), ColorTrackerConfig().build()
    shown, stamps = pictures(), itertools.count(1)
    first = next(shown)
    tracker.init(Frame("head", 0, first), mask())
    yield Case(
        "color",
        "image",
        lambda: segmenter.segment(first, Prompt(box=BOX)),
        lambda: cv2.cvtColor(first[150:330, 230:410], cv2.COLOR_RGB2HSV),
    )
    yield Case(
        "color",
        "video",
        lambda: tracker.update(Frame("head", next(stamps), next(shown))),
        lambda: cv2.cvtColor(first[150:330, 230:410], cv2.COLOR_RGB2HSV),
    )


def foreground(given: Mapping[str, Any]) -> Iterator[Case]:
    """The real weights, where they are at hand."""
    segmenter, shown = ForegroundConfig.model_validate(given).build(), pictures()
    session = segmenter._session  # noqa: SLF001 - the very same
    inputs = {segmenter._input: np.zeros((1, 3, *segmenter._size), np.float32)}  # noqa: SLF001

    def asked() -> None:
        with suppress(PerceptionError):
            segmenter.segment(next(shown), Prompt(box=BOX))

    name = f"isnet-{given.get('model', 'medium')}"
    yield Case(name, "image", asked, lambda: session.run([segmenter._output], inputs))  # noqa: SLF001
