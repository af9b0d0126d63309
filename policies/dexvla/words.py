"""What DexVLA reads and says, as tokens: the language model's own ``tokenizer.json``, and its chat's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policies.checkpoint import CheckpointError
from runtime.printable import printable

FILE = "tokenizer.json"
BEGINS, ENDS, PICTURE = "<|im_start|>", "<|im_end|>", "<|image_pad|>"
SEES, SAW = "<|vision_start|>", "<|vision_end|>"
FILL = "<|endoftext|>"
SPECIAL = (FILL, BEGINS, ENDS, SEES, SAW, "<|vision_pad|>", PICTURE, "<|video_pad|>")
NEXT = "Next action:"
"""What the model says between its reasoning and its end."""
_SYSTEM = f"{BEGINS}system\nYou are a helpful assistant.{ENDS}\n{BEGINS}user\n"
_ASKED = f"{ENDS}\n{BEGINS}assistant\n"


class DexVlaWords:
    """A language model's tokens.

    Attributes:
        end, fill: the token that ends what is said, and the one that rows are filled up with.

    Raises:
        CheckpointError: a token that the chat's form needs is not among them.
    """

    def __init__(self, tokenizer: Any, where: str) -> None:
        self._tokenizer, self._where = tokenizer, where
        self.end, self.fill = self._id(ENDS), self._id(FILL)

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(f"{self._where}: it has no token {token!r}, which Qwen2-VL's have")
        return int(found)

    def _tokens(self, text: str) -> list[int]:
        return list(map(int, self._tokenizer.encode(text, add_special_tokens=False).ids))

    def fits(self, config: Any, where: str) -> None:
        """Whether a language model's configuration means the same by its tokens.

        Raises:
            CheckpointError: it does not.
        """
        for token, key in ((PICTURE, "image_token_id"), (SEES, "vision_start_token_id")):
            if (mine := self._id(token)) != (its := getattr(config, key)):
                raise CheckpointError(
                    f"{where}: {key} is {its}, and {self._where} has {token!r} as {mine}: not of one model"
                )
        if self._tokenizer.get_vocab_size() > config.text_config.vocab_size:
            raise CheckpointError(
                f"{where}: a vocabulary of {config.text_config.vocab_size}, and {self._where} has "
                f"{self._tokenizer.get_vocab_size()} tokens: not of one model"
            )

    def before(self, pictures: int, tokens: int) -> list[int]:
        """What comes before the instruction: so many pictures of so many tokens each."""
        return self._tokens(_SYSTEM + (SEES + PICTURE * tokens + SAW) * pictures)

    def instruction(self, text: str) -> list[int]:
        """The instruction; what it has of the chat's own form is words like any other."""
        return self._tokens(_plain(text))

    def after(self) -> list[int]:
        """What comes after the instruction."""
        return self._tokens(_ASKED)

    def answer(self, reasoning: str) -> list[int]:
        """What the model is to say."""
        return [*self._tokens(_plain(reasoning) + NEXT), self.end]

    def reasoning(self, said: Sequence[int]) -> str:
        """What the model said, without how it ends, on one line."""
        text = str(self._tokenizer.decode(list(said), skip_special_tokens=True))
        return " ".join(printable(text.partition(NEXT)[0]).split())

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` into `folder`."""
        self._tokenizer.save(str(folder / FILE))


def _plain(text: str) -> str:
    return text.replace("<|", "< |")


def words_of(folder: Path) -> DexVlaWords:
    """The tokens of the language model in `folder`.

    Raises:
        CheckpointError: there is no ``tokenizer.json``, or it is none.
    """
    from tokenizers import Tokenizer

    path = folder / FILE
    if not path.is_file():
        raise CheckpointError(f"{folder}: there is no {FILE} in it, the language model's own")
    try:
        return DexVlaWords(Tokenizer.from_file(str(path)), str(path))
    except CheckpointError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{path}: no tokenizer: {' '.join(str(error).split())[:200]}") from None


def byte_words() -> DexVlaWords:
    """Every byte a token of its own, for a language model that begins with nothing."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: place for place, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in SPECIAL])
    return DexVlaWords(tokenizer, "bytes")


def byte_vlm(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """`sizes` of a language model, with the vocabulary and the tokens of `byte_words`."""
    ids = {token: 256 + place for place, token in enumerate(SPECIAL)}
    return {
        **sizes,
        "text_config": {
            **sizes["text_config"],
            "vocab_size": 256 + len(SPECIAL),
            "bos_token_id": ids[FILL],
            "eos_token_id": ids[ENDS],
            "pad_token_id": None,
        },
        "image_token_id": ids[PICTURE],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids[SEES],
        "vision_end_token_id": ids[SAW],
    }
