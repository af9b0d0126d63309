"""Detection by words: tiny random weights, through the code that loads and asks the real ones."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.perception.zero_shot import asked_for
from planner.perception.zero_shot_config import GroundingDinoConfig, Owlv2Config
from runtime.interfaces import Detection, Detector, PerceptionError
from runtime.messages import ColorImage
from tests.planner import tiny_detectors

pytest.importorskip("transformers")
PHRASES = ["Red cup", "blue cube."]
KINDS = ("GroundingDino", "MMGroundingDino")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {kind: tiny_detectors.grounding_dino(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}
    return {**made, "Owlv2": tiny_detectors.owlv2(tmp_path_factory.mktemp("owlv2"))}


def picture() -> ColorImage:
    return np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)


def dino(path: Path, **options: Any) -> Detector:
    return GroundingDinoConfig.model_validate({"path": path, **options}).build()


def reference(path: Path, threshold: float) -> tuple[Any, Any]:
    """What `transformers`' own processor makes of the same folder, picture and phrases."""
    import torch
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    processor = AutoProcessor.from_pretrained(path, local_files_only=True)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(path, local_files_only=True).eval()
    labels = [[asked_for(phrase) for phrase in PHRASES]]
    inputs = processor(images=picture(), text=labels, return_tensors="pt")
    with torch.no_grad():
        answer = model(**inputs)
    (found,) = processor.post_process_grounded_object_detection(
        answer, threshold=threshold, target_sizes=[picture().shape[:2]], text_labels=labels
    )
    return found, answer


def boxes(found: Sequence[Detection]) -> list[tuple[float, ...]]:
    return sorted(tuple(round(side, 2) for side in each.box) for each in found)


def clipped(corners: Any) -> list[tuple[float, ...]]:
    inside = np.clip(corners.numpy(), 0, (80, 48, 80, 48))
    large = [each for each in inside.tolist() if each[2] - each[0] >= 1 and each[3] - each[1] >= 1]
    return sorted(tuple(round(side, 2) for side in each) for each in large)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_those_of_the_processor_itself(folders: dict[str, Path], kind: str) -> None:
    threshold = 0.97 if kind == "GroundingDino" else 0.02
    every = {"box_threshold": threshold, "text_threshold": 1e-6, "per_phrase": 100}
    detector = dino(folders[kind], **every)
    assert isinstance(detector, Detector)
    found = detector.detect(picture(), PHRASES)
    theirs, answer = reference(folders[kind], threshold)
    assert 0 < len(theirs["scores"]) < 12
    assert boxes(found) == clipped(theirs["boxes"])
    # [CLS] red cup . blue cube . [SEP]: a phrase's score is the mean of its words'
    probable = answer.logits[0].sigmoid().numpy()
    kept = probable[probable.max(axis=1) > threshold]
    means = np.stack([kept[:, 1:3].mean(axis=1), kept[:, 4:6].mean(axis=1)])
    assert sorted(each.score for each in found) == pytest.approx(sorted(means.max(axis=0).tolist()), abs=1e-5)
    assert sum(each.phrase == PHRASES[0] for each in found) == int((means.argmax(axis=0) == 0).sum())


def test_the_best_of_each_phrase_is_kept_and_the_best_comes_first(folders: dict[str, Path]) -> None:
    every = dino(folders["GroundingDino"], per_phrase=100).detect(picture(), PHRASES)
    assert [each.score for each in every] == sorted((each.score for each in every), reverse=True)
    best = dino(folders["GroundingDino"]).detect(picture(), PHRASES)
    phrases = [each.phrase for each in every]
    assert list(best) == [every[phrases.index(phrase)] for phrase in dict.fromkeys(phrases)]


def test_nothing_over_the_threshold_is_nothing_seen(folders: dict[str, Path]) -> None:
    assert dino(folders["MMGroundingDino"], box_threshold=0.999).detect(picture(), PHRASES) == []
    assert dino(folders["GroundingDino"], text_threshold=0.9999999).detect(picture(), PHRASES) == []
    assert dino(folders["GroundingDino"]).detect(picture(), []) == ()


def test_half_precision_gives_about_the_same_boxes(folders: dict[str, Path]) -> None:
    (best,) = dino(folders["GroundingDino"]).detect(picture(), PHRASES[:1])
    (half,) = dino(folders["GroundingDino"], precision="bfloat16").detect(picture(), PHRASES[:1])
    assert half.score == pytest.approx(best.score, abs=0.02)


def test_owlv2_answers_as_the_processor_does(folders: dict[str, Path]) -> None:
    threshold = 0.3
    config = Owlv2Config(path=folders["Owlv2"], box_threshold=threshold, per_phrase=100, template="{}")
    found = config.build().detect(picture(), PHRASES)
    theirs, _ = reference(folders["Owlv2"], threshold)
    assert len(theirs["scores"]) > 0
    assert boxes(found) == clipped(theirs["boxes"])
    assert {each.phrase for each in found} <= set(PHRASES)


def test_phrases_are_written_as_the_networks_were_trained() -> None:
    assert asked_for("  The Red\tCup. ") == "the red cup"
    assert asked_for("1.5 l bottle?") == "1 5 l bottle"
    for nothing in (" . ", "\u200b"):
        with pytest.raises(PerceptionError, match="is no phrase"):
            asked_for(nothing)


def test_a_phrase_of_which_the_tokenizer_reads_nothing_is_said(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planner.perception.zero_shot.asked_for", lambda phrase: phrase)
    for phrases in (["\u200b"], ["red cup", "\u200b"]):
        with pytest.raises(PerceptionError, match=r"is no phrase to look for: the tokenizer"):
            dino(folders["GroundingDino"]).detect(picture(), phrases)


def test_what_the_network_cannot_read_at_once_is_said(folders: dict[str, Path]) -> None:
    with pytest.raises(PerceptionError, match="20 phrases are 62 tokens; the detector reads 32 at once"):
        dino(folders["GroundingDino"]).detect(picture(), ["red cup"] * 20)
    with pytest.raises(PerceptionError, match="is 9 tokens; the detector reads 8"):
        Owlv2Config(path=folders["Owlv2"]).build().detect(picture(), ["small red cup"])


# --- what cannot be loaded


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def changed(file: Path, **values: Any) -> None:
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**known, **values}))


EVIL = "evil.Evil"


@pytest.mark.parametrize(
    ("file", "values", "loads"),
    [
        ("processor_config.json", {"processor_class": None, "auto_map": {"AutoProcessor": EVIL}}, True),
        ("processor_config.json", {"processor_class": "Evil", "auto_map": {"AutoProcessor": EVIL}}, True),
        (
            "config.json",
            {"auto_map": {"AutoModelForZeroShotObjectDetection": EVIL, "AutoConfig": EVIL}},
            True,
        ),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": [EVIL, EVIL]}},
            None,
        ),
        (
            "preprocessor_config.json",
            {"image_processor_type": "Evil", "auto_map": {"AutoImageProcessor": EVIL}},
            None,
        ),
        ("config.json", {"text_config": {"model_type": "detr", "auto_map": {"AutoModel": EVIL}}}, False),
    ],
)
def test_code_in_a_folder_is_never_run_and_nobody_is_asked(
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    values: dict[str, Any],
    loads: bool | None,
) -> None:
    folder = copied(folders["GroundingDino"], tmp_path / "evil")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    changed(folder / file, **values)
    questions: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text="": questions.append(text) or "y")
    alarm = signal.getsignal(signal.SIGALRM)
    said = ""
    try:
        dino(folder)
    except PerceptionError as error:
        said = str(error)
    assert questions == []
    assert not (tmp_path / "ran").exists()
    assert signal.getsignal(signal.SIGALRM) is alarm
    assert "\n" not in said
    if loads is not None:
        assert (said == "") is loads, said


@pytest.mark.parametrize(
    "values",
    [
        {"text_config": None},
        {"text_config": []},
        {"text_config": {"vocab_size": "many"}},
        {"max_text_len": None},
        {"num_queries": 10**30},
        {"backbone_config": 5},
    ],
)
def test_a_configuration_that_makes_no_network_is_one_line(
    folders: dict[str, Path], tmp_path: Path, values: dict[str, Any]
) -> None:
    folder = copied(folders["GroundingDino"], tmp_path / "changed")
    changed(folder / "config.json", **values)
    with pytest.raises(PerceptionError, match=r"^perception\.detector") as caught:
        dino(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["GroundingDino", "Owlv2"])
@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"size": {"height": 30_000, "width": 64}}, "size has height = 30000; sides are 1 to 4096"),
        ({"size": {"height": 0, "width": 64}}, "size has height = 0"),
        ({"pad_size": {"height": 10**6, "width": 64}}, "pad_size has height = 1000000"),
        ({"image_std": [0, 0, 0]}, "makes what is no number of pictures"),
        ({"image_mean": [None, None, None]}, "makes what is no number of pictures"),
        ({"image_mean": [0.5]}, "mean must have 3 elements"),
        ({"image_std": ["a", "a", "a"]}, "could not convert string"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_pictures_that_no_network_can_be_shown_are_one_line(
    folders: dict[str, Path], tmp_path: Path, kind: str, values: dict[str, Any], why: str
) -> None:
    folder = copied(folders[kind], tmp_path / "changed")
    processor = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    changed(folder / "processor_config.json", image_processor={**processor, **values})
    build = Owlv2Config(path=folder).build if kind == "Owlv2" else GroundingDinoConfig(path=folder).build
    with pytest.raises(PerceptionError, match=why) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_texts_are_as_long_as_the_network_reads_whatever_the_tokenizer_says(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    picked = (
        Owlv2Config(path=folders["Owlv2"], box_threshold=1e-6).build().detect(picture(), ["red cup", "a"])
    )
    folder = copied(folders["Owlv2"], tmp_path / "changed")
    for length in (None, 10**6, -1):
        changed(folder / "tokenizer_config.json", model_max_length=length)
        again = Owlv2Config(path=folder, box_threshold=1e-6).build().detect(picture(), ["red cup", "a"])
        assert again == picked


def test_weights_in_a_pickle_are_not_loaded(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["GroundingDino"], tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "model_x.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(PerceptionError, match=r"there is no model\.safetensors in it"):
        dino(folder)


def test_a_folder_of_another_kind_is_refused_before_anything_is_loaded(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    GroundingDinoConfig(path=folders["MMGroundingDino"]).check_files()
    with pytest.raises(PerceptionError, match="type 'owlv2' is no detector of type 'grounding_dino'; known"):
        GroundingDinoConfig(path=folders["Owlv2"]).check_files()
    with pytest.raises(PerceptionError, match=r"perception\.detector\.path = .*no such folder"):
        GroundingDinoConfig(path=tmp_path / "none").check_files()


def test_a_folder_without_tokenizer_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["GroundingDino"], tmp_path / "half")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(PerceptionError, match=r"its tokenizer knows \d+ of 25 tokens") as error:
        dino(folder)
    assert "\n" not in str(error.value)
    with pytest.raises(PerceptionError, match=r"perception\.detector\.device 'cuda:7'"):
        dino(folders["GroundingDino"], device="cuda:7")
