"""EdgeTAM's folder with tiny random weights, made by `transformers`' own classes, and tracked with both ways.

In a process of its own, for timm and torchvision come from elsewhere. ``python -m ... FOLDER``
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from planner.perception.sam2_config import Sam2SegmenterConfig, Sam2TrackerConfig
from planner.perception.sam2_network import full_size
from runtime.interfaces import Prompt
from tests.perception.tiny_sam2 import HEIGHT, WIDTH, ball, frame, picture, randomized

BOX = (30.0, 40.0, 70.0, 80.0)
FRAMES = 20
"""More than it looks back."""


def with_torchvision() -> None:
    """Import it; PyPI's, which is made for CUDA, lacks its kernels here, and nobody calls them."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [each for each in sys.modules if each.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
        globals()["_library"] = library  # its operators end with it


def tiny() -> Any:
    """With the public checkpoint's parts, RepViT by timm as its backbone."""
    import transformers as library
    from transformers.models.edgetam_video import configuration_edgetam_video as parts

    transformers: Any = library
    side, width = 128, 128  # wider than a memory (64)
    backbone = transformers.TimmWrapperConfig(
        architecture="repvit_m1",
        model_args={"in_chans": 3, "features_only": True, "out_indices": (0, 1, 2, 3)},
    )
    vision = transformers.EdgeTamVisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[384, 192, 96, 48],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=width,
    )
    config = transformers.EdgeTamVideoConfig(
        vision_config=vision,
        prompt_encoder_config=parts.EdgeTamVideoPromptEncoderConfig(hidden_size=width, image_size=side),
        mask_decoder_config=parts.EdgeTamVideoMaskDecoderConfig(hidden_size=width, iou_head_hidden_dim=width),
        image_size=side,
        memory_attention_hidden_size=width,
        memory_attention_mlp_hidden_size=width,
        memory_attention_rope_feat_sizes=[8, 8],
        memory_attention_rope_k_sizes=[4, 4],
        perceiver_resampler_num_latents=16,
        perceiver_resampler_num_latents_2d=16,
        memory_encoder_hidden_size=width,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=2 * width,
    )
    return randomized(transformers.EdgeTamVideoModel(config))


def main() -> None:
    """Make the folder, track with ours, and with a session that forgets nothing."""
    with_torchvision()
    import transformers

    folder = Path(sys.argv[1])
    tiny().save_pretrained(folder)
    ours = Sam2TrackerConfig(path=folder).build()
    network = ours._objects._network
    session: Any = transformers.EdgeTamVideoInferenceSession(
        video_height=HEIGHT, video_width=WIDTH, dtype=torch.float32
    )
    place, seen = session.obj_id_to_idx(0), 0
    for step in range(FRAMES):
        one = ours.update(frame(step)) if step else ours.init(frame(), ball())
        if not step:
            session.add_mask_inputs(place, 0, network.square(ball()))
            session.obj_with_new_inputs = [0]
        with torch.inference_mode():
            other = network.model(
                inference_session=session, frame=network.pixels(picture(step)), frame_idx=step
            )
        mask = full_size(other.pred_masks[0, 0], (HEIGHT, WIDTH))
        shows = float(other.object_score_logits.flatten()[0]) > 0
        assert np.array_equal(one.mask, mask if shows else mask * 0), step
        seen += bool(one.mask.any())
    assert seen > FRAMES // 2
    cut = Sam2SegmenterConfig(path=folder).build().segment(picture(), Prompt(BOX))
    assert cut.mask.any()
    print(f"{network.kind}: {seen} of {FRAMES} frames with a mask, equal to transformers' own")


if __name__ == "__main__":
    main()
