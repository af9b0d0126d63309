"""DexVLA's network (Wen et al., arXiv 2502.05855): transformers' Qwen2-VL, a diffusion head, what joins them.

The language model reads pictures and instruction and says what the next sub-step is. What it made of the
prompt, modulated by what it made of its own words, is the vector that the head denoises a chunk from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn

from policies.dexvla.fusion import ActionProjector, ReasoningFilm, mean_of
from policies.dexvla.scaledp import ScaleDp
from policies.dexvla.shape import PUBLIC_TYPE, VLM_CLASSES, DexVlaShape

LANGUAGE_MODEL, EYES = "model.language_model.", "model.visual."
"""What transformers' names in memory begin with where files have ``model.`` and ``visual.``."""


@dataclass(frozen=True, slots=True)
class DexVlaPrompt:
    """What the language model reads.

    Attributes:
        words: ``[B, L]`` tokens, filled up on the left. there: ``[B, L]``, false where they are filled up.
        patches: ``[P, C]``, of all pictures of all rows. grids: ``[N, 3]``, how many each picture has in
            time, height and width.
    """

    words: Tensor
    there: Tensor
    patches: Tensor
    grids: Tensor


@dataclass(frozen=True, slots=True)
class DexVlaReading:
    """What a chunk is denoised from: a vector ``[1, C]``, and the tokens that the model said."""

    condition: Tensor
    said: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DexVlaLoss:
    """The training loss and its parts."""

    loss: Tensor
    action: Tensor
    language: Tensor


def vlm_config(given: Mapping[str, Any]) -> Any:
    """Transformers' configuration of the language model that ``config.json`` describes.

    Raises:
        ValueError: it describes none.
    """
    import transformers

    kind = given.get("model_type")
    name, _ = VLM_CLASSES["qwen2_vl" if kind == PUBLIC_TYPE else str(kind)]
    left = ("model_type", "architectures", "auto_map", "transformers_version", "torch_dtype", "dtype")
    try:
        config = getattr(transformers, name)(**{k: v for k, v in given.items() if k not in left})
    except Exception as error:  # what is wrong with a configuration comes as any of a dozen kinds
        raise ValueError(" ".join(str(error).split())) from None
    text = config.text_config
    if text.hidden_size % text.num_attention_heads:
        raise ValueError(f"hidden_size {text.hidden_size} of {text.num_attention_heads} attention heads")
    return config


class DexVla(nn.Module):
    """The network.

    Raises:
        ValueError: sizes that do not fit each other.
    """

    def __init__(self, shape: DexVlaShape) -> None:
        super().__init__()
        import transformers

        config = vlm_config(shape.vlm)
        self.shape = shape
        self.vlm: Any = getattr(transformers, VLM_CLASSES[config.model_type][1])(config)
        self.width: int = config.text_config.hidden_size
        self.policy_head = ScaleDp(shape.head, self.width)
        self.input_action_proj = ActionProjector(self.width)
        self.reasoning_action_proj = ActionProjector(self.width)
        self.reasoning_film = ReasoningFilm(self.width)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.policy_head.pos_embed.device

    # --- reading and saying

    def positions(self, prompt: DexVlaPrompt) -> Tensor:
        """Of each token in time, height and width, ``[3, B, L]``: transformers' own."""
        picture = (prompt.words == self.vlm.config.image_token_id).int()
        return self.vlm.model.get_rope_index(  # type: ignore[no-any-return]
            prompt.words,
            mm_token_type_ids=picture,
            image_grid_thw=prompt.grids,
            attention_mask=prompt.there,
        )[0]

    def hidden(self, prompt: DexVlaPrompt, positions: Tensor, cache: Any = None) -> Tensor:
        """The language model's last hidden states ``[B, L, C]``, after its norm."""
        found = self.vlm.model(
            input_ids=prompt.words,
            attention_mask=prompt.there,
            position_ids=positions,
            pixel_values=prompt.patches,
            image_grid_thw=prompt.grids,
            cache=cache,
            use_cache=cache is not None,
        )
        return found.last_hidden_state  # type: ignore[no-any-return]

    def condition(self, hidden: Tensor, asked: Tensor, said: Tensor) -> Tensor:
        """The head's vector ``[B, C]`` of ``hidden[B, L, C]``.

        `asked` and `said`, ``[B, L]`` each, say which are of the prompt and of what the model said itself;
        each row has at least one of either.
        """
        reasoning = self.reasoning_action_proj(hidden, said)
        modulated = self.reasoning_film(self.input_action_proj(hidden, asked), reasoning)
        return modulated + mean_of(hidden, asked)  # type: ignore[no-any-return]

    def read(self, prompt: DexVlaPrompt, end: int, longest: int) -> DexVlaReading:
        """Read one prompt, and say what comes next: greedily, until the token `end` or `longest` tokens.

        As in the public code the last token's own state is not looked at, unless it is the only one.
        """
        from transformers import DynamicCache

        cache: Any = DynamicCache(config=self.vlm.config.text_config)
        places = self.positions(prompt)
        hidden = [self.hidden(prompt, places, cache)]
        said = [self._next(hidden[0])]
        place = int(places.max()) + 1
        while said[-1] != end and len(said) < longest:
            hidden.append(self._go_on(said[-1], place, cache))
            place += 1
            said.append(self._next(hidden[-1]))
        if len(hidden) == 1:
            hidden.append(self._go_on(said[-1], place, cache))
        states = torch.cat(hidden, dim=1)
        asked = torch.arange(states.shape[1], device=states.device)[None] < prompt.words.shape[1]
        return DexVlaReading(self.condition(states, asked, ~asked), tuple(said))

    def _next(self, hidden: Tensor) -> int:
        return int(self.vlm.lm_head(hidden[0, -1]).argmax())

    def _go_on(self, word: int, place: int, cache: Any) -> Tensor:
        """The hidden state ``[1, 1, C]`` of one more token."""
        words = torch.tensor([[word]], device=self.device)
        places = torch.full((3, 1, 1), place, device=self.device)
        found = self.vlm.model.language_model(
            inputs_embeds=self.vlm.get_input_embeddings()(words),
            position_ids=places,
            cache=cache,
            use_cache=True,
        )
        return found.last_hidden_state  # type: ignore[no-any-return]

    # --- training

    def loss(
        self,
        prompt: DexVlaPrompt,
        said: Tensor,
        state: Tensor,
        actions: Tensor,
        is_pad: Tensor,
        language_weight: float = 1.0,
        noise: Tensor | None = None,
        timesteps: Tensor | None = None,
    ) -> DexVlaLoss:
        """Of a batch whose words end with what is to be said.

        Args:
            prompt: what is read.
            said: ``[B, L]``, which of its words the model is to say: the last ones of each row.
            state: ``[B, S]``, normalised.
            actions: ``[B, T, A]``, normalised.
            is_pad: ``[B, T]``, which rows are after the episode's end.
            language_weight: of the language model's loss.
            noise: of the head, ``[B, T, A]``; drawn unless given.
            timesteps: of the head, ``[B]``; drawn unless given.
        """
        hidden = self.hidden(prompt, self.positions(prompt))
        logits = self.vlm.lm_head(hidden[:, :-1][said[:, 1:]])
        language = F.cross_entropy(logits.float(), prompt.words[:, 1:][said[:, 1:]])
        about = self.policy_head.about(self.condition(hidden, prompt.there & ~said, said), state)
        action = self.policy_head.loss(actions, is_pad, about, noise, timesteps)
        return DexVlaLoss(action + language_weight * language, action, language)

    # --- the public code's names

    def public_state(self) -> dict[str, Tensor]:
        """All weights under the names of the public code's files; tied ones once."""
        tied = bool(self.vlm.config.tie_word_embeddings)
        state = {public_name(name): value for name, value in self.state_dict().items()}
        return {name: value for name, value in state.items() if not (tied and name == "lm_head.weight")}

    def begin_rest(self) -> None:
        """Begin anew with the head and what joins it, which were made without weights."""
        parts = (self.policy_head, self.input_action_proj, self.reasoning_action_proj, self.reasoning_film)
        for part in parts:
            part.to_empty(device="cpu")
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    module.reset_parameters()
        self.policy_head.begin()
        self.reasoning_film.begin()

    def known(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`state` under the public code's names, from whichever version of transformers it is; tied once."""
        tied = bool(self.vlm.config.tie_word_embeddings)
        found = {public_name(own_name(name)): value for name, value in state.items()}
        return {name: value for name, value in found.items() if not (tied and name == "lm_head.weight")}

    def load_public(self, state: Mapping[str, Tensor]) -> None:
        """Take weights by those names, as they are: in their own dtype and memory. All must be there."""
        held = {own_name(name): value for name, value in state.items()}
        if self.vlm.config.tie_word_embeddings:
            held.setdefault("vlm.lm_head.weight", held[f"vlm.{LANGUAGE_MODEL}embed_tokens.weight"])
        self.load_state_dict(held, assign=True)
        if self.vlm.config.tie_word_embeddings:
            self.vlm.lm_head.weight = self.vlm.get_input_embeddings().weight


_OWN = ("policy_head.", "input_action_proj.", "reasoning_action_proj.", "reasoning_film.")


def is_of_vlm(name: str) -> bool:
    """Whether the public code's `name` is the language model's."""
    return not name.startswith(_OWN)


def public_name(name: str) -> str:
    """What the public code's files call the weight that the network calls `name`."""
    inner = name.removeprefix("vlm.")
    if inner.startswith(LANGUAGE_MODEL):
        return f"model.{inner.removeprefix(LANGUAGE_MODEL)}"
    return inner.removeprefix("model.") if inner.startswith(EYES) else inner


def own_name(name: str) -> str:
    """The way back; names as newer versions of transformers keep them in memory are known, too."""
    if name.startswith(_OWN):
        return name
    if name.startswith((LANGUAGE_MODEL, EYES)):
        return f"vlm.{name}"
    if name.startswith("model."):
        return f"vlm.{LANGUAGE_MODEL}{name.removeprefix('model.')}"
    return f"vlm.model.{name}" if name.startswith("visual.") else f"vlm.{name}"


def drawn(make: Callable[[], DexVla], seed: int) -> DexVla:
    """A network with seeded random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
