"""SAM 2 on a CUDA device does what it does on the CPU. Skipped where there is none.

    python -m pytest --noconftest -W default tests/perception/test_cuda.py

needs torch, transformers, numpy, OpenCV and pytest, and neither torchvision nor what else dexrun needs.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from planner.perception.sam2_network import Sam2Network, network_of  # noqa: E402 - after the skip
from planner.perception.sam2_segmenter import Sam2Segmenter  # noqa: E402
from planner.perception.sam2_tracker import Sam2MultiTracker  # noqa: E402
from planner.perception.weights import ModelFolder  # noqa: E402
from runtime.interfaces import PerceptionError, Point, Prompt  # noqa: E402
from runtime.messages import Mask, TrackedMask  # noqa: E402
from runtime.torch_device import free_bytes, open_device  # noqa: E402
from tests.perception.tiny_sam2 import ball, frame, picture, tiny_config, tiny_folder, tiny_model  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

PROMPTS = (Prompt((30.0, 40.0, 70.0, 80.0)), Prompt(points=(Point(50, 60), Point(100, 20, inside=False))))
DIFFER = {"float32": 0.005, "bfloat16": 0.02, "float16": 0.01}
"""By precision, the share of a picture's pixels in which masks may differ from the CPU's in float32."""
SCORES = {"float32": 0.002, "bfloat16": 0.01, "float16": 0.005}
FRAMES = 12


def network(device: str, precision: str, *, video: bool) -> Sam2Network:
    dtype = getattr(torch, precision)
    model = copy.deepcopy(tiny_model(video=video)).to(device, dtype)
    return network_of(model, "sam2_video", torch.device(device), dtype)


def differ(one: Mask, other: Mask) -> float:
    return float((one != other).mean())


@pytest.mark.parametrize("precision", DIFFER)
@pytest.mark.parametrize("multimask", [True, False])
def test_a_picture_is_segmented_as_on_the_cpu(precision: str, multimask: bool) -> None:
    there = Sam2Segmenter(network("cuda", precision, video=False), multimask=multimask)
    here = Sam2Segmenter(network("cpu", "float32", video=False), multimask=multimask)
    for prompt in PROMPTS:
        one, other = there.segment(picture(), prompt), here.segment(picture(), prompt)
        assert one.score == pytest.approx(other.score, abs=SCORES[precision])
        assert differ(one.mask, other.mask) < DIFFER[precision]


def follow(device: str, precision: str) -> list[TrackedMask]:
    """Two objects, a prompt in mid-stream, the newest frame once more."""
    tracker = Sam2MultiTracker(network(device, precision, video=True))
    seen = [tracker.update(frame(), {"ball": ball(), "other": np.roll(ball(), 60, axis=1)})]
    prompts = [{"ball": ball(step)} if step == 6 else {} for step in range(FRAMES)]
    seen += [tracker.update(frame(step), prompts[step]) for step in range(1, FRAMES)]
    seen.append(tracker.update(frame(FRAMES - 1), {"other": PROMPTS[0]}))
    return [each for both in seen for each in both.values()]


@pytest.mark.parametrize("precision", DIFFER)
def test_objects_are_followed_as_on_the_cpu(precision: str) -> None:
    """A random network's errors grow from frame to frame: twice as much for all of them."""
    there, here = follow("cuda", precision), follow("cpu", "float32")
    apart = [differ(one.mask, other.mask) for one, other in zip(there, here, strict=True)]
    assert max(apart[:4]) < DIFFER[precision]
    assert np.mean(apart) < 2 * DIFFER[precision]
    for one, other in zip(there[:4], here[:4], strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=4 * SCORES[precision])


def test_the_devices_memory_does_not_grow() -> None:
    tracker = Sam2MultiTracker(network("cuda", "bfloat16", video=True))
    tracker.update(frame(), {"ball": ball()})
    taken = []
    for step in range(1, 61):
        tracker.update(frame(step))
        taken.append(torch.cuda.memory_allocated())
    assert max(taken[20:]) <= max(taken[16:20])


def test_what_is_hidden_has_no_mask() -> None:
    net = network("cuda", "bfloat16", video=True)
    tracker = Sam2MultiTracker(net)
    tracker.update(frame(), {"ball": ball()})
    with torch.no_grad():
        net.model.mask_decoder.pred_obj_score_head.proj_out.bias.sub_(100)
    lost = tracker.update(frame(1))["ball"]
    assert (lost.confidence, lost.mask.any()) == (0, False)
    with torch.no_grad():
        net.model.mask_decoder.pred_obj_score_head.proj_out.bias.add_(100)
    assert tracker.update(frame(2))["ball"].confidence > 0


def test_compiled_it_sees_the_same() -> None:
    net = network("cuda", "float32", video=False)
    plain = Sam2Segmenter(net).segment(picture(), PROMPTS[0])
    with torch._inductor.config.patch(compile_threads=1):  # in this process: no workers are left
        net.model.vision_encoder.compile()
        quick = Sam2Segmenter(net).segment(picture(), PROMPTS[0])
    assert differ(plain.mask, quick.mask) < DIFFER["float32"]


def test_a_folder_is_loaded_onto_the_device(tmp_path: Any) -> None:
    from planner.perception.pretrained import checked_device, load_model

    path = tiny_folder(tmp_path)
    folder = ModelFolder.open("perception.tracker.path", path, ("sam2_video",), "tracker")
    device = checked_device("perception.tracker", folder, "cuda", "bfloat16")
    model = load_model(folder, "Sam2VideoModel", device, "bfloat16")
    assert {(each.device.type, each.dtype) for each in model.parameters()} == {("cuda", torch.bfloat16)}
    free = free_bytes(open_device("perception.tracker", "cuda:0"))
    assert 0 < free <= torch.cuda.get_device_properties(0).total_memory
    with pytest.raises(PerceptionError, match="million weights need"):
        folder.check_fits(free // folder.parameters + 1, free, "cuda:0")
    with pytest.raises(PerceptionError, match=r"perception\.tracker\.device 'cuda:99': torch sees"):
        checked_device("perception.tracker", folder, "cuda:99", "bfloat16")


def test_the_public_sizes_are_what_they_are_said_to_be() -> None:
    """Millions of weights, as published."""
    assert tiny_config().model_type == "sam2_video"
    pytest.importorskip("anyio")
    from bench.sam2 import SIZES, random_sam2

    for size, millions in zip(SIZES, (38.9, 46.0, 80.8, 224.4), strict=True):
        model = random_sam2(size, "cuda", "bfloat16", video=True).model
        assert sum(each.numel() for each in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.2)
