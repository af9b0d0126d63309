"""SAM 2 by `transformers`, with tiny random weights: what is asked reaches it, what it says is passed on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tqdm import tqdm  # noqa: E402 - after the skip

from dexrun.__main__ import main  # noqa: E402
from planner.perception import sam2_network  # noqa: E402
from planner.perception.sam2_config import Sam2SegmenterConfig, Sam2TrackerConfig  # noqa: E402
from planner.perception.sam2_segmenter import Sam2Segmenter  # noqa: E402
from planner.perception.sam2_tracker import Sam2MultiTracker, Sam2Tracker  # noqa: E402
from runtime.interfaces import (  # noqa: E402
    MultiTracker,
    PerceptionError,
    Point,
    Prompt,
    Segmenter,
    Tracker,
)
from runtime.messages import Frame  # noqa: E402
from tests.perception.tiny_sam2 import (  # noqa: E402
    HEIGHT,
    WIDTH,
    ball,
    frame,
    picture,
    tiny_folder,
    tiny_sam3,
)

BOX = (30.0, 40.0, 70.0, 80.0)
CONFIG = str(Path(__file__).parents[2] / "config.toml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> Sam2Segmenter:
    return Sam2SegmenterConfig(path=folder).build()


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Sam2MultiTracker:
    return Sam2TrackerConfig(path=folder).build_multi()


@pytest.fixture
def objects(loaded: Sam2MultiTracker) -> Sam2MultiTracker:
    loaded.begin()
    return loaded


@pytest.fixture
def hidden(loaded: Sam2MultiTracker) -> Iterator[Any]:
    """Tells the network whether it sees the object: its own head for that, with another bias."""
    bias = loaded._network.model.mask_decoder.pred_obj_score_head.proj_out.bias
    kept = bias.detach().clone()

    def hide(yes: bool) -> None:
        with torch.no_grad():
            bias.copy_(kept - 100.0 if yes else kept)

    yield hide
    hide(False)


def test_they_are_what_the_interfaces_ask_for(segmenter: Segmenter, objects: MultiTracker) -> None:
    assert isinstance(segmenter, Segmenter)
    assert isinstance(objects, MultiTracker)
    assert isinstance(Sam2Tracker(objects), Tracker)  # type: ignore[arg-type]


def test_the_best_of_three_masks_and_the_one_are_the_networks_own(
    segmenter: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the model itself, called with the box as a box, and in the scale of its square."""
    network = segmenter._network
    # else the one mask of a random network is so unstable that the best of three stands in for it
    monkeypatch.setattr(network.model.mask_decoder, "dynamic_multimask_via_stability", False)
    with torch.inference_mode():
        answer = network.model(
            pixel_values=network.pixels(picture()),
            input_boxes=torch.tensor([[BOX]]) * torch.tensor([128 / 160, 128 / 120] * 2),
            multimask_output=True,
        )
        one = network.model(
            pixel_values=network.pixels(picture()),
            input_points=torch.tensor([[[[50 * 128 / 160, 60 * 128 / 120], [4.0, 4.0]]]]),
            input_labels=torch.tensor([[[1, 0]]]),
            multimask_output=False,
        )
    best = int(answer.iou_scores[0, 0].argmax())
    found = segmenter.segment(picture(), Prompt(BOX))
    assert found.score == pytest.approx(float(answer.iou_scores[0, 0, best]), abs=1e-6)
    expected = sam2_network.full_size(answer.pred_masks[0, 0, best], (HEIGHT, WIDTH))
    assert np.array_equal(found.mask, expected)
    single = Sam2Segmenter(network, multimask=False)
    clicked = single.segment(picture(), Prompt(points=(Point(50, 60), Point(5, 3.75, inside=False))))
    assert clicked.score == pytest.approx(float(one.iou_scores[0, 0, 0]), abs=1e-6)
    assert not np.array_equal(
        clicked.mask, segmenter.segment(picture(), Prompt(points=(Point(50, 60),))).mask
    )
    assert np.array_equal(clicked.mask, sam2_network.full_size(one.pred_masks[0, 0, 0], (HEIGHT, WIDTH)))


def test_clicks_on_one_picture_look_at_it_once(
    segmenter: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    look = segmenter._network.model.get_image_embeddings
    monkeypatch.setattr(
        segmenter._network.model, "get_image_embeddings", lambda pixels: looks.append(1) or look(pixels)
    )
    first = segmenter.segment(picture(3), Prompt(BOX))
    other = segmenter.segment(picture(3), Prompt(BOX, (Point(100, 90, inside=False),)))
    assert not np.array_equal(first.mask, other.mask)
    assert np.array_equal(segmenter.segment(picture(3), Prompt(BOX)).mask, first.mask)
    segmenter.segment(picture(4), Prompt(BOX))
    assert len(looks) == 2


def test_a_read_only_picture_and_a_view_are_pictures(segmenter: Sam2Segmenter) -> None:
    image = picture()
    image.setflags(write=False)
    expected = segmenter.segment(picture(), Prompt(BOX)).mask
    assert np.array_equal(segmenter.segment(image, Prompt(BOX)).mask, expected)
    turned = np.ascontiguousarray(picture()[:, :, ::-1])[:, :, ::-1]
    assert np.array_equal(segmenter.segment(turned, Prompt(BOX)).mask, expected)


def test_what_is_not_in_the_picture(segmenter: Sam2Segmenter) -> None:
    with pytest.raises(PerceptionError, match=r"the box \[0, 0, 161, 10\] is not inside"):
        segmenter.segment(picture(), Prompt((0, 0, 161, 10)))
    with pytest.raises(PerceptionError, match=r"the point \(160, 3\) is not inside"):
        segmenter.segment(picture(), Prompt(points=(Point(160, 3),)))


def test_no_mask_and_no_number_are_said(segmenter: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    model = segmenter._network.model
    heads = model.mask_decoder.register_forward_hook(lambda _, __, answer: (answer[0] * 0 - 1, *answer[1:]))
    with pytest.raises(PerceptionError, match=r"sees no object in the box \[30, 40, 70, 80\]"):
        segmenter.segment(picture(), Prompt(BOX))
    with pytest.raises(PerceptionError, match=r"sees no object at the point \(50, 60\)"):
        segmenter.segment(picture(), Prompt(points=(Point(50, 60),)))
    heads.remove()
    heads = model.mask_decoder.register_forward_hook(lambda _, __, answer: (answer[0] * np.nan, *answer[1:]))
    with pytest.raises(PerceptionError, match="no number"):
        segmenter.segment(picture(), Prompt(BOX))
    heads.remove()


# --- tracking


def test_memory_is_bounded_and_the_masks_are_the_same_bit_by_bit(
    loaded: Sam2MultiTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """42 frames, with another prompt in the middle, beside a session that forgets nothing."""
    from bench.sam2 import stored_bytes
    from planner.perception.sam2_session import Sam2Session

    def followed() -> tuple[list[Any], list[int]]:
        loaded.begin()
        masks, sizes = [], []
        for step in range(42):
            prompts = {0: {"it": ball()}, 26: {"it": Prompt(BOX)}}.get(step, {})
            masks.append(loaded.update(frame(step), prompts)["it"])
            sizes.append(stored_bytes(loaded._session))
        return masks, sizes

    bounded, sizes = followed()
    monkeypatch.setattr(Sam2Session, "_forget", lambda self: None)
    endless, growing = followed()
    loaded.begin()
    for one, other in zip(bounded, endless, strict=True):
        assert np.array_equal(one.mask, other.mask)
        assert one.confidence == other.confidence
    assert any(seen.mask.any() for seen in bounded[1:])
    assert max(sizes[17:26]) == min(sizes[17:26])
    assert max(sizes[27:]) < 1.15 * sizes[25]  # a second frame with a prompt
    assert growing[-1] > 4 * sizes[-1]
    steps = np.diff(growing)[27:]
    assert steps.min() > sizes[-1] / 40


def test_what_is_hidden_has_no_mask_and_comes_back(objects: Sam2MultiTracker, hidden: Any) -> None:
    tracker = Sam2Tracker(objects)
    assert tracker.init(frame(), ball()).confidence == pytest.approx(1.0, abs=1e-3)
    assert tracker.update(frame(1)).confidence > 0
    hidden(True)
    for step in (2, 3):
        lost = tracker.update(frame(step))
        assert (lost.confidence, lost.mask.any(), lost.stamp_ns) == (0, False, step)
        assert lost.mask.shape == (HEIGHT, WIDTH)
    hidden(False)
    back = tracker.update(frame(4))
    assert back.confidence > 0
    assert back.mask.any()


@pytest.mark.parametrize("prompt", ["mask", "box", "clicks"])
def test_a_lost_object_is_pointed_at_again(objects: Sam2MultiTracker, hidden: Any, prompt: str) -> None:
    """In mid-stream, for the newest frame or the next; what was seen before is not forgotten."""
    what = {"mask": ball(2), "box": Prompt(BOX), "clicks": Prompt(points=(Point(54, 62), Point(5, 5, False)))}
    tracker = Sam2Tracker(objects)
    tracker.init(frame(), ball())
    hidden(True)
    assert tracker.update(frame(1)).confidence == 0
    assert tracker.update(frame(2)).confidence == 0
    hidden(False)
    found = tracker.correct(frame(2), what[prompt])
    assert found.stamp_ns == 2
    assert found.confidence > 0
    if prompt == "mask":
        assert (found.mask & ball(2)).sum() > 0.9 * (found.mask | ball(2)).sum()
    assert sorted(objects._session.state.output_dict_per_obj[0]["cond_frame_outputs"]) == [0, 2]
    again = tracker.correct(frame(2), Prompt(BOX))  # once more on the same frame: the last word counts
    assert sorted(objects._session.state.output_dict_per_obj[0]["cond_frame_outputs"]) == [0, 2]
    assert not np.array_equal(again.mask, ball(2))
    assert tracker.correct(frame(3), ball(3)).mask.any()
    assert tracker.update(frame(4)).stamp_ns == 4


def test_prompts_that_are_kept_are_limited(folder: Path, objects: Sam2MultiTracker) -> None:
    for step in range(9):
        objects.update(frame(step), {"it": ball(step)})
    assert sorted(objects._session.state.output_dict_per_obj[0]["cond_frame_outputs"]) == [0, 6, 7, 8]
    assert not any(any(kept) for kept in objects._session.state.point_inputs_per_obj.values())
    assert list(objects._session.state.mask_inputs_per_obj[0]) == [8]


def test_several_objects_share_one_look_at_each_picture(
    objects: Sam2MultiTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together they are what each is alone; one that comes later is taken up in mid-stream."""
    looks: list[int] = []
    model = objects._network.model
    look = model.get_image_features
    monkeypatch.setattr(model, "get_image_features", lambda *a, **k: looks.append(1) or look(*a, **k))
    other = np.roll(ball(), 60, axis=1)
    together = [objects.update(frame(), {"ball": ball(), "other": other})]
    together += [objects.update(frame(step)) for step in range(1, 4)]
    assert len(looks) == 4
    for name, mask in (("ball", ball()), ("other", other)):
        objects.begin()
        alone = [objects.update(frame(), {name: mask})] + [
            objects.update(frame(step)) for step in range(1, 4)
        ]
        for one, both in zip(alone, together, strict=True):
            assert np.abs(one[name].confidence - both[name].confidence) < 1e-4
            assert (one[name].mask != both[name].mask).mean() < 0.002
    late = objects.update(frame(4), {"ball": Prompt(BOX)})
    assert list(late) == ["other", "ball"]
    assert list(objects.update(frame(5))) == ["other", "ball"]


def test_backwards_is_what_the_whole_videos_reverse_is(
    objects: Sam2MultiTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Sam2VideoInferenceSession

    network = objects._network
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # the iterator's progress bar has a thread
    count = 17  # from 16 on, the whole video's pointers are told apart as a stream's are
    video = torch.cat([network.pixels(picture(step)) for step in range(count)])
    session = Sam2VideoInferenceSession(
        video=video, video_height=HEIGHT, video_width=WIDTH, dtype=torch.float32
    )
    session.add_mask_inputs(session.obj_id_to_idx(0), count - 1, network.square(ball(count - 1)))
    session.obj_with_new_inputs = [0]
    network.model(inference_session=session, frame_idx=count - 1)
    whole = network.model.propagate_in_video_iterator(session, start_frame_idx=count - 1, reverse=True)
    expected = [sam2_network.full_size(each.pred_masks[0, 0], (HEIGHT, WIDTH)) for each in whole]
    seen = [objects.update(frame(count - 1), {"it": ball(count - 1)})["it"]]
    seen += [objects.update(frame(step))["it"] for step in reversed(range(count - 1))]
    assert len(expected) == count
    for one, other in zip(seen, expected, strict=True):
        assert np.array_equal(one.mask, other if one.confidence > 0 else np.zeros_like(other))
    assert sum(one.confidence > 0 for one in seen) > 1


def test_misuse_of_the_tracker_is_said(objects: Sam2MultiTracker) -> None:
    tracker = Sam2Tracker(objects)
    with pytest.raises(PerceptionError, match="nothing to follow yet"):
        tracker.update(frame())
    with pytest.raises(PerceptionError, match="does not belong"):
        tracker.init(frame(), ball()[:50])
    with pytest.raises(PerceptionError, match="empty"):
        tracker.init(frame(), 0 * ball())
    tracker.init(frame(), ball())
    with pytest.raises(PerceptionError, match="first one was"):
        tracker.update(Frame("head", 1, picture()[:100]))
    assert tracker.update(frame(1)).stamp_ns == 1


def test_what_is_no_number_ends_the_tracking(objects: Sam2MultiTracker) -> None:
    """It would be in the memory of every frame to come."""
    objects.update(frame(), {"it": ball()})
    model = objects._network.model
    spoilt = model.mask_decoder.register_forward_hook(lambda _, __, answer: (answer[0] * np.nan, *answer[1:]))
    with pytest.raises(PerceptionError, match="no number"):
        objects.update(frame(1))
    spoilt.remove()
    with pytest.raises(PerceptionError, match="nothing to follow"):
        objects.update(frame(2))


# --- loading


def test_half_precision_sees_the_same(
    folder: Path, segmenter: Sam2Segmenter, objects: Sam2MultiTracker
) -> None:
    half = Sam2SegmenterConfig(path=folder, precision="bfloat16").build()
    one, other = (each.segment(picture(), Prompt(BOX)) for each in (segmenter, half))
    assert (one.mask != other.mask).mean() < 0.05
    assert one.score == pytest.approx(other.score, abs=0.02)
    tracker = Sam2TrackerConfig(path=folder, precision="bfloat16").build()
    seen = tracker.init(frame(), ball()), tracker.update(frame(1))
    assert (seen[0].mask != ball()).mean() < 0.02
    assert seen[1].confidence > 0


def test_a_folder_without_a_memory_is_no_trackers(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "sam2"}))
    with pytest.raises(
        PerceptionError, match=r"perception\.tracker\.path = .* type 'sam2' is no tracker"
    ) as caught:
        Sam2TrackerConfig(path=tmp_path).build()
    assert "known types are edgetam_video, sam2_video, sam3_tracker_video, sam3_video" in str(caught.value)


def test_weights_that_are_missing_or_of_other_sizes(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    fewer = {name: each for name, each in weights.items() if not name.startswith("memory_encoder")}
    save_file(fewer, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        PerceptionError, match=r"\d+ weights of Sam2VideoModel are not in it: memory_encoder\."
    ):
        Sam2TrackerConfig(path=tmp_path).build()
    Sam2SegmenterConfig(path=tmp_path).build()  # which needs no memory
    save_file(
        {**weights, "no_object_pointer": torch.zeros(1, 7)}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(
        PerceptionError, match="1 weights of Sam2VideoModel have other sizes in it: no_object_pointer"
    ) as caught:
        Sam2TrackerConfig(path=tmp_path).build()
    assert "\n" not in str(caught.value)


def test_too_big_a_model_is_refused_before_it_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planner.perception.pretrained.free_bytes", lambda device: 1 << 20)
    with pytest.raises(
        PerceptionError, match=r"million weights need 0\.0\d GiB of cpu, where 0\.00 GiB are free"
    ):
        Sam2SegmenterConfig(path=folder).build()


def test_a_run_is_refused_before_a_device_is_touched(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", CONFIG, "--runs", str(tmp_path / "runs")]
    missing = str(tmp_path / "sam2.1-hiera-tiny")
    assert main([*words, "--perception.tracker.type", "sam2", "--perception.tracker.path", missing]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"dexrun: perception.tracker.path = '{missing}': no such folder")
    assert said.count("\n") == 1
    device = ["--perception.segmenter.type", "sam2", "--perception.segmenter.path", str(folder)]
    assert main([*words, *device, "--perception.segmenter.device", "gpu", "--check"]) == 0
    assert not (tmp_path / "runs").exists()


def test_edgetam_needs_another_package(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.packages._there", lambda package: package != "timm")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "edgetam_video"}))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(PerceptionError, match=r"model of type 'edgetam_video' needs timm: pip install timm$"):
        Sam2TrackerConfig(path=tmp_path).check_files()


def test_the_tracker_of_sam3_segments_and_tracks(tmp_path: Path) -> None:
    """Another picture encoder, another size, another normalization; the rest is the same."""
    tiny_sam3().save_pretrained(tmp_path)
    segmenter = Sam2SegmenterConfig(path=tmp_path).build()
    assert segmenter._network.side == 112
    assert segmenter._network.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert segmenter.segment(picture(), Prompt(BOX)).mask.any()
    objects = Sam2TrackerConfig(path=tmp_path).build_multi()
    first = objects.update(frame(), {"ball": ball(), "box": Prompt(BOX)})
    assert (first["ball"].mask != ball()).mean() < 0.02
    prompts: list[dict[str, Any]] = [{}, {"ball": Prompt(BOX)}, {}]
    for step, prompt in enumerate(prompts, start=1):
        assert all(seen.mask.any() for seen in objects.update(frame(step), prompt).values())


def test_what_is_no_normalization_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(folder / name)
    processor = tmp_path / "preprocessor_config.json"
    channels = [0.1, 0.2, 0.3]
    processor.write_text(json.dumps({"image_mean": channels}))
    assert sam2_network._normalization(Sam2SegmenterConfig(path=tmp_path).folder())[0] == pytest.approx(
        channels
    )
    for text, why in (
        ('{"image_mean": [0.5]}', r"image_mean is \[0\.5\]; it is to be three numbers"),
        ('{"image_mean": [0.5, 0.5, 0.5, 0.5]}', "image_mean is .* three numbers"),
        ('{"image_mean": [0.5, 0.5, "0.5"]}', "image_mean is .* three numbers"),
        ('{"image_mean": 0.5}', "image_mean is 0.5; .* three numbers"),
        ('{"image_std": [1, 0, 1]}', "image_std is .* above 0"),
        ('{"image_std": [1, 1e400, 1]}', "image_std is .* three numbers"),
        (f'{{"image_std": [1, 1{"0" * 400}, 1]}}', "image_std is .* three numbers"),
        ("[]", "is no table"),
        ("[" * 100_000, "is not JSON"),
    ):
        processor.write_text(text)
        with pytest.raises(
            PerceptionError, match=rf"^perception\.segmenter\.path = .*preprocessor.*{why}"
        ) as caught:
            Sam2SegmenterConfig(path=tmp_path).build()
        assert "\n" not in str(caught.value)
