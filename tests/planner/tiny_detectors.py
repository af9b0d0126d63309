"""Detectors with random weights, as small as their code allows, as ``save_pretrained`` leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = tuple(
    "red blue green yellow cup cube ball box small large the a of photo left on table object".split()  # noqa: SIM905
)
SIZE = {"shortest_edge": 64, "longest_edge": 96}


def _bert_tokenizer() -> Any:
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", *WORDS]
    return BertTokenizer(vocab={word: at for at, word in enumerate(words)}, do_lower_case=True)


def grounding_dino(folder: Path, kind: str = "GroundingDino", queries: int = 12) -> Path:
    """`kind` is ``GroundingDino`` or ``MMGroundingDino``: 0.16 million weights, texts of 32 tokens.

    It answers with at most `queries` boxes.
    """
    import torch
    import transformers
    from transformers.models.grounding_dino import image_processing_pil_grounding_dino as images

    transformers.utils.logging.disable_progress_bar()  # its thread outlives it

    backbone = transformers.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = transformers.BertConfig(
        vocab_size=7 + len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    small = {f"{each}_ffn_dim": 16 for each in ("encoder", "decoder")}
    small |= {f"{each}_attention_heads": 2 for each in ("encoder", "decoder")}
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        num_queries=queries,
        max_text_len=32,
        **small,
    )
    model = getattr(transformers, f"{kind}ForObjectDetection")(config).eval()
    model.save_pretrained(folder)
    processor = images.GroundingDinoImageProcessorPil(size=SIZE)
    transformers.GroundingDinoProcessor(processor, _bert_tokenizer()).save_pretrained(folder)
    return folder


def owlv2(folder: Path) -> Path:
    """0.02 million weights, 64x64 pixels, texts of 8 tokens."""
    import torch
    import transformers
    from transformers.models.owlv2 import image_processing_pil_owlv2 as images

    transformers.utils.logging.disable_progress_bar()

    pieces = [f"{letter}{end}" for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    merges, known = [], dict.fromkeys(pieces)
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            known[parts[0]] = None
    vocab = {piece: at for at, piece in enumerate([*known, "<|startoftext|>", "<|endoftext|>", "!"])}
    tokenizer = transformers.CLIPTokenizer(
        vocab=vocab,
        merges=list(dict.fromkeys(merges)),
        model_max_length=8,
        pad_token="!",  # noqa: S106
    )
    side = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": len(vocab) - 3, "eos_token_id": len(vocab) - 2, "pad_token_id": len(vocab) - 1}
    text = {**side, **ends, "vocab_size": len(vocab), "max_position_embeddings": 8}
    vision = {**side, "image_size": 64, "patch_size": 16}
    torch.manual_seed(1)
    config = transformers.Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)
    transformers.Owlv2ForObjectDetection(config).eval().save_pretrained(folder)
    processor = images.Owlv2ImageProcessorPil(size={"height": 64, "width": 64})
    transformers.Owlv2Processor(processor, tokenizer).save_pretrained(folder)
    return folder
