"""Pictures for detectors: what `transformers`' own processors make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from planner.perception.zero_shot_pictures import DetectorPictures  # noqa: E402 - after the skip

SIZES = [(480, 640), (640, 480), (48, 80), (300, 1500), (1080, 1920), (64, 64), (97, 31)]
CPU = torch.device("cpu")


def dino(**how: Any) -> Any:
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
        GroundingDinoImageProcessorPil,
    )

    return GroundingDinoImageProcessorPil(**how)


def owl(**how: Any) -> Any:
    from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

    return Owlv2ImageProcessorPil(**how)


def picture(size: tuple[int, int]) -> Any:
    """Noise with a gradient, so that a shift by a pixel or a channel shows."""
    height, width = size
    ramp = np.linspace(0, 120, height * width * 3).reshape(height, width, 3)
    noise = np.random.default_rng(1).integers(0, 136, (height, width, 3))
    return (ramp + noise).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "processor",
    [
        pytest.param(lambda: dino(size={"shortest_edge": 200, "longest_edge": 333}), id="dino"),
        pytest.param(lambda: owl(size={"height": 96, "width": 96}), id="owl"),
        pytest.param(lambda: owl(size={"height": 700, "width": 500}), id="owl large"),
    ],
)
def test_they_are_the_processors_own(processor: Any, size: tuple[int, int]) -> None:
    own = processor()
    ours, theirs = DetectorPictures(own, CPU)(picture(size)), own(images=picture(size), return_tensors="pt")
    assert ours.keys() == theirs.keys()
    for name, each in theirs.items():
        assert ours[name].shape == each.shape
        assert ours[name].dtype == each.dtype
    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"], atol=1e-5, rtol=0)
    if "pixel_mask" in theirs:
        assert torch.equal(ours["pixel_mask"], theirs["pixel_mask"])


@pytest.mark.parametrize(
    "unusual",
    [
        {"do_resize": False},
        {"do_normalize": False},
        {"resample": 3},
        {"pad_size": {"height": 400, "width": 400}},
        {"size": {"height": 50, "width": 60}},
    ],
)
def test_one_that_does_something_else_is_asked_itself(unusual: Any) -> None:
    own = dino(**{"size": {"shortest_edge": 40, "longest_edge": 60}, **unusual})
    ours = DetectorPictures(own, CPU)(picture((48, 80)))
    theirs = own(images=picture((48, 80)), return_tensors="pt")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], each) for name, each in theirs.items())
