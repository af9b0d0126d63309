"""The same weights in the original repository and by transformers' high level: the same masks and scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from planner.perception.sam2_network import Sam2Network, network_of  # noqa: E402 - after the skip
from planner.perception.sam2_segmenter import Sam2Segmenter  # noqa: E402
from planner.perception.sam2_tracker import Sam2MultiTracker  # noqa: E402
from runtime.interfaces import Point, Prompt  # noqa: E402
from tests.perception.tiny_sam2 import HEIGHT, WIDTH, frame, picture, tiny_model  # noqa: E402

PROMPTS = {
    "box": Prompt((30.0, 40.0, 70.0, 80.0)),
    "clicks": Prompt(points=(Point(50, 60), Point(100, 20, inside=False))),
}
APART = {"original": 1e-4, "transformers": 0.005}
"""Share of pixels: transformers' processor rounds a resized picture to whole levels, the original not."""
SCORES = {"original": 1e-5, "transformers": 5e-4}
FRAMES = 18


@pytest.fixture(params=["original", "transformers"])
def of(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def reference(of: str) -> Mapping[str, Any]:
    return dict(np.load(Path(__file__).parent / "reference" / f"{of}.npz"))


def network(*, video: bool) -> Sam2Network:
    return network_of(tiny_model(video=video), "sam2_video", torch.device("cpu"), torch.float32)


def masks(packed: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    return np.unpackbits(packed).reshape(count, HEIGHT, WIDTH)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_picture(of: str, reference: Mapping[str, Any], prompt: str) -> None:
    found = Sam2Segmenter(network(video=False)).segment(picture(), PROMPTS[prompt])
    assert found.score == pytest.approx(float(reference[f"{prompt}_score"]), abs=SCORES[of])
    assert (found.mask != masks(reference[f"{prompt}_mask"], 1)[0]).mean() < APART[of]


def test_a_video(of: str, reference: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Frame by frame with a memory that forgets, against a whole video held."""
    tracker = Sam2MultiTracker(network(video=True))
    scores: list[float] = []
    seen = tracker._tracked
    monkeypatch.setattr(
        tracker, "_tracked", lambda at, sighting: scores.append(sighting.presence) or seen(at, sighting)
    )
    found = [tracker.update(frame(), {"it": PROMPTS["box"]})["it"].mask]
    found += [tracker.update(frame(step))["it"].mask for step in range(1, FRAMES)]
    expected = masks(reference["video_masks"], FRAMES)
    assert max((one != other).mean() for one, other in zip(found, expected, strict=True)) < APART[of]
    assert np.abs(np.array(scores) - reference["video_scores"]).max() < 10 * SCORES[of]
