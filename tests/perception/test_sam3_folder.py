"""The whole of SAM 3's folder, of which the tracker is taken: a detector lies beside it, with its encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from planner.perception.sam2_config import Sam2SegmenterConfig, Sam2TrackerConfig  # noqa: E402
from planner.perception.sam2_network import full_size  # noqa: E402
from runtime.interfaces import PerceptionError, Prompt  # noqa: E402
from tests.perception.tiny_sam2 import HEIGHT, WIDTH, ball, frame, picture, tiny_sam3  # noqa: E402

BOX = (30.0, 40.0, 70.0, 80.0)
FRAMES = 20
"""More than it looks back."""


def public_name(name: str) -> str:
    """What the public checkpoint calls a weight of the tracker; its picture encoder is the detector's."""
    if name.startswith("vision_encoder.neck."):
        return name.replace("vision_encoder.neck.", "tracker_neck.")
    encoder = name.startswith("vision_encoder.")
    return f"detector_model.{name}" if encoder else f"tracker_model.{name}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import transformers as library
    from safetensors.torch import save_file

    transformers: Any = library
    made, model = tmp_path_factory.mktemp("sam3"), tiny_sam3()
    weights = {public_name(name): each.contiguous() for name, each in model.state_dict().items()}
    weights["detector_model.text_projection.weight"] = torch.ones(8, 8)
    save_file(weights, made / "model.safetensors", {"format": "pt"})
    detector = transformers.Sam3Config(vision_config=model.config.vision_config.to_dict())
    config = transformers.Sam3VideoConfig(
        detector_config=detector.to_dict(), tracker_config=model.config.to_dict()
    )
    config.save_pretrained(made)
    return made


def test_its_tracker_tracks_as_transformers_own_session_does(folder: Path) -> None:
    import transformers as library

    transformers: Any = library
    ours = Sam2TrackerConfig(path=folder).build()
    network = ours._objects._network
    assert network.kind == "sam3_video"
    theirs = tiny_sam3()  # which has never been in a folder
    session = transformers.Sam3TrackerVideoInferenceSession(
        video_height=HEIGHT, video_width=WIDTH, dtype=torch.float32
    )
    place, seen = session.obj_id_to_idx(0), 0
    session.add_mask_inputs(place, 0, network.square(ball()))
    session.obj_with_new_inputs = [0]
    for step in range(FRAMES):
        one = ours.update(frame(step)) if step else ours.init(frame(), ball())
        with torch.inference_mode():
            other = theirs(inference_session=session, frame=network.pixels(picture(step)), frame_idx=step)
        mask = full_size(other.pred_masks[0, 0], (HEIGHT, WIDTH))
        shows = float(other.object_score_logits.flatten()[0]) > 0
        assert np.array_equal(one.mask, mask if shows else mask * 0)
        seen += bool(one.mask.any())
    assert seen > FRAMES // 2


def test_its_tracker_segments(folder: Path, tmp_path: Path) -> None:
    tiny_sam3().save_pretrained(tmp_path)
    alone = Sam2SegmenterConfig(path=tmp_path).build().segment(picture(), Prompt(BOX))
    found = Sam2SegmenterConfig(path=folder).build().segment(picture(), Prompt(BOX))
    assert found.mask.any()
    assert found.score == alone.score
    assert np.array_equal(found.mask, alone.mask)


def test_a_detector_alone_is_refused(folder: Path, tmp_path: Path) -> None:
    known = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(known["detector_config"]))
    with pytest.raises(
        PerceptionError, match=r"a model of type 'sam3' is no tracker .* known types are"
    ) as caught:
        Sam2TrackerConfig(path=tmp_path).build()
    assert "\n" not in str(caught.value)
