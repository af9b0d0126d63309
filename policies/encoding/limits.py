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

    def check_size(self, size: int) -> None:
        """Refuse a message of more than `size_bytes`.

        Raises:
            WireError: kind ``too_large``.
        """
        if size > self.size_bytes:
            raise WireError(f"message of {size} bytes; at most {self.size_bytes} are taken", "too_large")


DEFAULT_LIMITS = Limits()
