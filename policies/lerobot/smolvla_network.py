"""SmolVLA's network (Shukor et al., arXiv 2506.01844), under the names of LeRobot's files.

Pictures, words and state are read once: what each layer of the language model makes of them, its keys and
values, is the `Reading` from which an expert of as many layers denoises a chunk by flow matching. Layers of
the expert that attend to the reading alone see it through projections of their own, which do not depend on
the chunk: they are computed with the reading, not once per step of the flow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn

from policies.lerobot.smolvla_layers import Rotation, attended, heads, joined, looked
from policies.lerobot.smolvla_shape import SmolVlaShape
from policies.linear import make_packable, pack_all


@dataclass(frozen=True, slots=True)
class Reading:
    """What a chunk is denoised from.

    Attributes:
        keys, values: of each layer, ``[B, kv heads, P, H]``; where the expert attends to the reading alone,
            as its own projections have them.
        seen: ``[B, 1, 1, P]``, what of it counts; ``None``: all.
        own, after: rotations of the chunk's rows, from 0, and from where the reading ends.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    seen: Tensor | None
    own: Rotation
    after: Rotation


class SmolVla(nn.Module):
    """The network. ``vlm_with_expert.vlm`` is transformers' own model; its weights are used, not its forward.

    Raises:
        ValueError: sizes that do not fit each other.
    """

    def __init__(self, shape: SmolVlaShape) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaModel, SmolVLMConfig, SmolVLMForConditionalGeneration

        config = SmolVLMConfig(**shape.vlm)
        text: Any = config.text_config
        if shape.vlm_layers > text.num_hidden_layers:
            raise ValueError(f"vlm_layers {shape.vlm_layers}: the model has {text.num_hidden_layers}")
        width = int(text.hidden_size * shape.expert_width)
        expert = LlamaConfig(
            **{
                **text.to_dict(),
                "hidden_size": width,
                "intermediate_size": _feed_forward(width),
                "num_hidden_layers": shape.vlm_layers,
                "vocab_size": 1,
                "pad_token_id": None,
                "bos_token_id": None,
                "eos_token_id": None,
            }
        )
        self.shape = shape
        self.vlm_with_expert: Any = nn.Module()
        self.vlm_with_expert.vlm = SmolVLMForConditionalGeneration(config)
        self.vlm_with_expert.vlm.model.text_model.layers = self._text.layers[: shape.vlm_layers]
        self.vlm_with_expert.lm_expert = LlamaModel(expert)
        self._expert.embed_tokens = None
        self._head_size: int = text.head_dim
        read_size = text.num_key_value_heads * text.head_dim
        for number, layer in enumerate(self._expert.layers):
            if not self._attends_to_itself(number):
                layer.self_attn.k_proj = nn.Linear(read_size, read_size, bias=text.attention_bias)
                layer.self_attn.v_proj = nn.Linear(read_size, read_size, bias=text.attention_bias)
        self.state_proj = nn.Linear(shape.state_size, text.hidden_size)
        self.action_in_proj = nn.Linear(shape.action_size, width)
        self.action_out_proj = nn.Linear(width, shape.action_size)
        self.action_time_mlp_in = nn.Linear(2 * width, width)
        self.action_time_mlp_out = nn.Linear(width, width)
        make_packable(self.vlm_with_expert)

    def pack(self, *, flow: bool, int8: bool = False) -> None:
        """Pack the large layers for inference on a CPU; their weights are given up.

        Args:
            flow: those that a chunk is denoised with, too; there is no gradient through them then.
            int8: round them to 8 bits.
        """
        pack_all(self.vlm_with_expert.vlm.model, int8=int8)
        if flow:
            pack_all(self._expert, int8=int8)

    @property
    def _text(self) -> Any:
        return self.vlm_with_expert.vlm.model.text_model

    @property
    def _expert(self) -> Any:
        return self.vlm_with_expert.lm_expert

    def _attends_to_itself(self, number: int) -> bool:
        return number % self.shape.self_attention_every == 0

    # --- reading

    def see(self, pixels: Tensor) -> Tensor:
        """Pictures ``[N, 3, side, side]`` in -1..1 to tokens ``[N, T, width]``.

        The same as the model's own for whole square pictures, whose patches' places are known beforehand.
        """
        model = self.vlm_with_expert.vlm.model
        # on a CPU one after the other: what a layer makes of one picture is still near when the next reads it
        each = [one[None] for one in pixels] if pixels.device.type == "cpu" else [pixels]
        tokens = torch.cat([model.connector(looked(model.vision_model, some)) for some in each])
        return tokens * math.sqrt(tokens.shape[-1])

    def read(
        self,
        pixels: Tensor,
        words: Tensor,
        word_mask: Tensor | None,
        state: Tensor,
        more: Tensor | None = None,
    ) -> Reading:
        """What there is to see, to read and to feel.

        Args:
            pixels: ``[B, cameras, 3, side, side]`` in -1..1, in the order of the policy's inputs.
            words: ``[B, L]`` tokens.
            word_mask: ``[B, L]``, true where there is a word; ``None``: everywhere.
            state: ``[B, state_size]``, normalised, filled up with zeros.
            more: ``[B, N, width]``, tokens of inputs that LeRobot has not; pictures and words see neither
                these nor the state.
        """
        batch, cameras = pixels.shape[:2]
        tokens = self.see(pixels.flatten(0, 1)).reshape(batch, cameras * self._picture_tokens, -1)
        said = self._text.embed_tokens(words) * math.sqrt(tokens.shape[-1])
        felt = self.state_proj(state.to(self.state_proj.weight.dtype))[:, None]
        last = felt if more is None else torch.cat([more.to(felt.dtype), felt], dim=1)
        known, last = torch.cat([tokens, said.to(tokens.dtype)], dim=1), last.to(tokens.dtype)
        x = torch.cat([known, last], dim=1)
        own = last.shape[1]
        seen, positions = self._places(x, words.shape[1], own, word_mask)
        # pictures and words do not see the state, which is last; it sees everything
        mask = torch.ones(1, 1, x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        mask[..., :-own, -own:] = False
        mask, turn = mask if seen is None else mask & seen, Rotation.at(positions, self._head_size)
        if _learns_after(known, last):
            masks = [mask[..., :-own, :-own], mask[..., -own:, :]]
            keys, values = self._remembered([known, last], masks, turn.split(known.shape[1]))
        else:
            keys, values = self._remembered([x], [mask], [turn])
        rows = torch.arange(self.shape.chunk, device=x.device)[None]
        return Reading(
            keys,
            values,
            seen,
            Rotation.at(rows, self._head_size),
            Rotation.at(rows + positions[:, -1:] + 1, self._head_size),
        )

    @property
    def _picture_tokens(self) -> int:
        model = self.vlm_with_expert.vlm.model
        return int(model.vision_model.embeddings.num_patches // model.connector.scale_factor**2)

    def _places(
        self, x: Tensor, words: int, after: int, word_mask: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        """What counts of the tokens, ``[B, 1, 1, P]``, and their positions ``[B, P]``; so many of them are
        `words`, and `after` come after these.
        """
        if word_mask is None:
            return None, torch.arange(x.shape[1], device=x.device)[None]
        there = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        there[:, -after - words : -after] = word_mask
        return there[:, None, None], there.cumsum(1) - 1

    def _remembered(
        self, parts: Sequence[Tensor], masks: Sequence[Tensor], turns: Sequence[Rotation]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Keys and values of `parts`, one after the other, the first of which sees itself alone."""
        keys, values = [], []
        layers = list(zip(self._text.layers, self._expert.layers, strict=True))
        for number, (layer, expert) in enumerate(layers):
            attention = layer.self_attn
            normed = [layer.input_layernorm(x) for x in parts]
            ks = [
                turn(heads(attention.k_proj(h), self._head_size))
                for h, turn in zip(normed, turns, strict=True)
            ]
            vs = [heads(attention.v_proj(h), self._head_size) for h in normed]
            k, v = (each[0] if len(each) == 1 else torch.cat(each, dim=2) for each in (ks, vs))
            if self._attends_to_itself(number):
                keys.append(k)
                values.append(v)
            else:
                keys.append(heads(expert.self_attn.k_proj(joined(k)), self._head_size))
                values.append(heads(expert.self_attn.v_proj(joined(v)), self._head_size))
            if number + 1 < len(layers):  # what the last one makes of it, nobody looks at
                sees = [(ks[0], vs[0]), (k, v)]
                each = zip(parts, normed, sees, masks, turns, strict=False)
                parts = [self._further(layer, *one) for one in each]
        return tuple(keys), tuple(values)

    def _further(
        self, layer: Any, x: Tensor, normed: Tensor, sees: tuple[Tensor, Tensor], mask: Tensor, turn: Rotation
    ) -> Tensor:
        """What a layer of the language model makes of `x`."""
        q = turn(heads(layer.self_attn.q_proj(normed), self._head_size))
        x = x + layer.self_attn.o_proj(joined(attended(q, *sees, mask)))
        further: Tensor = x + layer.mlp(layer.post_attention_layernorm(x))
        return further

    # --- denoising

    def time_part(self, times: Tensor) -> Tensor:
        """What flow times ``[S]`` in 0..1 add to each row, ``[S, width]``; the same for all chunks."""
        width = self.action_in_proj.out_features
        fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=times.device)
        shortest, longest = self.shape.shortest_period, self.shape.longest_period
        angles = times.double()[:, None] * (2 * math.pi / (shortest * (longest / shortest) ** fraction))
        waves = torch.cat([angles.sin(), angles.cos()], dim=1).to(self.action_time_mlp_in.weight.dtype)
        return F.linear(waves, self.action_time_mlp_in.weight[:, width:], self.action_time_mlp_in.bias)

    def velocity(self, x: Tensor, time_part: Tensor, reading: Reading) -> Tensor:
        """Where the flow goes at ``x[B, chunk, action_size]``, float32.

        `time_part` is ``[B or 1, width]``, or of each row ``[B, chunk, width]``.
        """
        if time_part.dim() == 2:
            time_part = time_part[:, None]
        first, last = self.action_time_mlp_in, self.action_time_mlp_out
        h = self.action_in_proj(x.to(self.action_in_proj.weight.dtype))
        h = F.linear(h, first.weight[:, : h.shape[-1]]) + time_part
        h = last(F.silu(h))
        rows = x.shape[1]
        causal = torch.ones(1, 1, rows, rows, dtype=torch.bool, device=x.device).tril()
        for number, layer in enumerate(self._expert.layers):
            attention = layer.self_attn
            normed = layer.input_layernorm(h)
            q = heads(attention.q_proj(normed), self._head_size)
            k, v = reading.keys[number], reading.values[number]
            if self._attends_to_itself(number):
                own = reading.after(heads(attention.k_proj(normed), self._head_size))
                k = torch.cat([k, own], dim=2)
                v = torch.cat([v, heads(attention.v_proj(normed), self._head_size)], dim=2)
                found = attended(reading.after(q), k, v, self._widened(reading, causal))
            else:
                found = attended(reading.own(q), k, v, reading.seen)
            h = h + attention.o_proj(joined(found))
            h = h + layer.mlp(layer.post_attention_layernorm(h))
        out, h = self.action_out_proj, self._expert.norm(h).float()
        with torch.autocast(h.device.type, enabled=False):
            return F.linear(h, out.weight.float(), out.bias.float())

    @staticmethod
    def _widened(reading: Reading, causal: Tensor) -> Tensor:
        """Whom each row sees: all of the reading that counts, and rows up to itself."""
        batch, tokens, rows = reading.keys[0].shape[0], reading.keys[0].shape[2], causal.shape[-1]
        if reading.seen is None:
            seen = torch.ones(1, 1, rows, tokens, dtype=torch.bool, device=causal.device)
            return torch.cat([seen, causal], dim=-1)
        seen = reading.seen.expand(batch, 1, rows, tokens)
        return torch.cat([seen, causal.expand(batch, 1, rows, rows)], dim=-1)

    def sample(self, reading: Reading, noise: Tensor) -> Tensor:
        """From ``noise[B, chunk, action_size]`` to a chunk, by Euler's method from time 1 to 0."""
        steps = self.shape.steps
        times = 1.0 - torch.arange(steps, device=noise.device, dtype=torch.float32) / steps
        parts = self.time_part(times)
        x = noise
        for step in range(steps):
            x = x - self.velocity(x, parts[step : step + 1], reading) / steps
        return x


def _feed_forward(width: int) -> int:
    """Two thirds of four times `width`, as a multiple of 256."""
    return 256 * math.ceil(4 * int(2 * width / 3) / 256)


def _learns_after(known: Tensor, last: Tensor) -> bool:
    """Whether a gradient goes to what comes last and to nothing before it: then nothing of what comes before
    is kept for it, and none of that is gone through backwards.
    """
    return torch.is_grad_enabled() and last.requires_grad and not known.requires_grad
