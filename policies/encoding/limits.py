"""What a message may be, at most: every decoder here is given a `Limits` and refuses more."""

from __future__ import annotations

from dataclasses import dataclass


class WireError(Exception):
    """A peer sent something that the protocol does not allow. One line; says what and what is allowed.

    Attributes:
        kind: a short, countable word (``"malformed"``, ``"too_large"``, ``"forbidden"``, ``"shape"``).
    """

    def __init__(self, detail: str, kind: str = "malformed") -> None:
        super().__init__(detail)
        self.kind = kind


_KEYS = 1 << 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one message.

    Attributes:
        size_bytes: length of the encoded message.
        depth: containers inside containers.
        items: values in all containers together.
        text_bytes: one string or key.
    """

    size_bytes: int = 64 * 1024 * 1024
    depth: int = 16
    items: int = 20_000
    text_bytes: int = 64 * 1024

    def check_key(self, key: object) -> None:
        """Refuse a map's key that is not text, bytes or a small integer.

        How texts are hashed no peer knows; integers are their own hash, and ones chosen for that make a map
        of 20,000 keys take seconds.

        Raises:
            WireError: kind ``malformed`` or ``too_large``.
        """
        if isinstance(key, int):
            if not 0 <= key < _KEYS:
                raise WireError(f"an integer key beyond {_KEYS}", "too_large")
        elif not isinstance(key, str | bytes):
            raise WireError(f"a key is a {type(key).__name__}; text, bytes and small integers are taken")

    def check_size(self, size: int) -> None:
        """Refuse a message of more than `size_bytes`.

        Raises:
            WireError: kind ``too_large``.
        """
        if size > self.size_bytes:
            raise WireError(f"message of {size} bytes; at most {self.size_bytes} are taken", "too_large")


DEFAULT_LIMITS = Limits()
