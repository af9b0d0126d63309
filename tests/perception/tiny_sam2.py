"""SAM 2 with the public models' parts, and so small and random that a frame takes milliseconds."""

from __future__ import annotations

import functools
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.messages import ColorImage, Frame, Mask

SIDE = 128
WIDTH, HEIGHT = 160, 120
_SALT = 1
"""With this one masks are neither empty nor full."""


def tiny_config() -> Any:
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig
    from transformers.models.sam2_video.configuration_sam2_video import (
        Sam2VideoMaskDecoderConfig,
        Sam2VideoPromptEncoderConfig,
    )

    backbone = Sam2HieraDetConfig(
        hidden_size=16,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 8, 4],
        global_attention_blocks=[3],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=128,
    )
    return Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(hidden_size=128, image_size=SIDE, patch_size=16),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(hidden_size=128, iou_head_hidden_dim=256),
        image_size=SIDE,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_rope_feat_sizes=[8, 8],
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=512,
    )


def randomized(model: Any) -> Any:
    """Weights of a size at which no layer drowns in another, so that every input shows in the output.

    Each is drawn by its name: what a later `transformers` draws before has no part in it.
    """
    generator = torch.Generator()

    def drawn(name: str, each: torch.Tensor) -> torch.Tensor:
        return torch.randn(
            each.shape, generator=generator.manual_seed(zlib.crc32(f"{_SALT} {name}".encode()))
        )

    positions = drawn("positions", model.prompt_encoder.shared_embedding.positional_embedding)
    with torch.no_grad():
        for name, each in model.named_parameters():
            if each.dim() > 1 and "embed" not in name.rpartition(".")[2]:
                each.copy_(drawn(name, each) / math.sqrt(math.prod(each.shape[1:])))
            elif each.dim() > 1 or not each.abs().any():
                each.copy_(0.1 * drawn(name, each))
        # one and the same in every checkpoint, and two random ones in a new model
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(positions)
        model.shared_image_embedding.positional_embedding.copy_(positions)
        # a random network sees an object as often as not
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(6.0)
    return model.eval()


@functools.cache
def tiny_model(*, video: bool) -> Any:
    """For tracking, or for single pictures; with the same weights as far as both have them."""
    from transformers import Sam2Config, Sam2Model, Sam2VideoModel

    config = tiny_config()
    whole = randomized(Sam2VideoModel(config))
    if video:
        return whole
    image = Sam2Model(
        Sam2Config(
            vision_config=config.vision_config,
            prompt_encoder_config=config.prompt_encoder_config.to_dict(),
            mask_decoder_config=config.mask_decoder_config.to_dict(),
        )
    )
    names = image.state_dict().keys()
    image.load_state_dict({name: each for name, each in whole.state_dict().items() if name in names})
    return image.eval()


def tiny_sam3() -> Any:
    """The tracker of SAM 3, as small."""
    from transformers import Sam3TrackerVideoConfig, Sam3TrackerVideoModel, Sam3VisionConfig, Sam3ViTConfig
    from transformers.models.sam3_tracker_video.configuration_sam3_tracker_video import (
        Sam3TrackerVideoMaskDecoderConfig,
        Sam3TrackerVideoPromptEncoderConfig,
    )

    side, width = 112, 128
    vit = Sam3ViTConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=side,
        patch_size=14,
        window_size=4,
        global_attn_indexes=[1],
        pretrain_image_size=side,
    )
    vision = Sam3VisionConfig(
        backbone_config=vit, fpn_hidden_size=width, backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]]
    )
    prompts = Sam3TrackerVideoPromptEncoderConfig(hidden_size=width, image_size=side, patch_size=14)
    config = Sam3TrackerVideoConfig(
        vision_config=vision,
        prompt_encoder_config=prompts,
        mask_decoder_config=Sam3TrackerVideoMaskDecoderConfig(hidden_size=width),
        image_size=side,
        memory_attention_hidden_size=width,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=width,
        memory_attention_rope_feat_sizes=[8, 8],
        memory_encoder_hidden_size=width,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=4 * width,
    )
    return randomized(Sam3TrackerVideoModel(config))


def tiny_folder(path: Path) -> Path:
    """A checkpoint as `save_pretrained` leaves it."""
    tiny_model(video=True).save_pretrained(path)
    return path


def picture(step: int = 0) -> ColorImage:
    """A ball that moves over a chequered table."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([90 + 20 * ((x // 20 + y // 20) % 2)] * 3, axis=-1).astype(np.uint8)
    image[ball(step) > 0] = (200, 40 + 3 * step % 60, 30)
    return image


def ball(step: int = 0) -> Mask:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return ((x - 50 - 2 * step) ** 2 + (y - 60 - step) ** 2 < 400).astype(np.uint8)


def frame(step: int = 0) -> Frame:
    return Frame("head", step, picture(step))
