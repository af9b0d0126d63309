"""A latest-wins mailbox for references between threads."""

from __future__ import annotations

import collections
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """A mailbox for one reference: a post replaces what was not taken yet.

    One ``append`` to, one ``popleft`` from or one look into a ``deque(maxlen=1)``, each atomic under the
    GIL. What is posted must never be changed afterwards.
    """

    def __init__(self) -> None:
        self._box: collections.deque[T] = collections.deque(maxlen=1)

    def post(self, item: T) -> None:
        """Replace what is in the box."""
        self._box.append(item)

    def take(self) -> T | None:
        """What is in the box, if anything; it is empty afterwards."""
        try:
            return self._box.popleft()
        except IndexError:
            return None

    def newest(self) -> T | None:
        """What is in the box, if anything; it stays there."""
        try:
            return self._box[0]
        except IndexError:
            return None

    def __bool__(self) -> bool:
        return bool(self._box)
