"""Reads a pickle without executing it.

A pickle is a program for a small stack machine, and `pickle.loads` lets it call whatever it names. This
reader runs the machine on values alone: a class or function that the protocol needs becomes a mark
(`Named`), a call becomes a note of it (`Call`), everything else is refused where it stands. Nothing is
called; afterwards `build` turns the notes into arrays and messages by functions of ours. Large byte
strings are views into the message, memo entries are bounded by the message's own opcodes, and neither
depth nor size is left to the sender.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from policies.encoding.limits import DEFAULT_LIMITS, Limits, WireError
from policies.pickles.machine import Call, Machine, Name, Named

Builder = Callable[[tuple[Any, ...], Any], Any]
"""Makes a value from a call's arguments and the state set on the result (``None`` if none was)."""


@dataclass(frozen=True, slots=True)
class PerLoad:
    """A builder that remembers something for as long as one message is read; `make` gives it for each."""

    make: Callable[[Limits], Builder]


Builders = Mapping[Name, Builder | PerLoad]


class _Build:
    """Turns noted calls into values, each once, however often it is referred to.

    Lives only while `load` holds the root, so that an id stays its owner's.
    """

    def __init__(self, builders: Builders, limits: Limits, leaves: frozenset[type]) -> None:
        self._leaves = leaves
        self._builders = builders
        self._per_load: dict[Name, Builder] = {}
        self._limits = limits
        self._left = limits.items
        self._done: dict[int, Any] = {}
        self._open: set[int] = set()

    def value(self, item: Any, depth: int = 0) -> Any:
        if type(item) in self._leaves:
            return item
        key = id(item)
        if key in self._done:
            return self._done[key]
        self._left -= 1
        if depth > self._limits.depth or key in self._open:
            raise WireError(f"more than {self._limits.depth} levels of nesting, or a circle", "too_large")
        if self._left < 0:
            raise WireError(f"more than {self._limits.items} values", "too_large")
        self._open.add(key)
        made = self._container(item, depth + 1)
        self._open.discard(key)
        self._done[key] = made
        return made

    def _container(self, item: Any, depth: int) -> Any:
        leaves = self._leaves
        if type(item) is list:
            return [x if type(x) in leaves else self.value(x, depth) for x in item]
        if type(item) is tuple:
            return tuple([x if type(x) in leaves else self.value(x, depth) for x in item])
        if isinstance(item, dict):
            return {k: v if type(v) in leaves else self.value(v, depth) for k, v in item.items()}
        if isinstance(item, Call):
            builder = self._builder(item.name)
            return builder(self.value(item.args, depth), self.value(item.state, depth))
        raise WireError("a persistent id outside a storage", "forbidden")

    def _builder(self, name: Name) -> Builder:
        found = self._builders[name]
        if not isinstance(found, PerLoad):
            return found
        if name not in self._per_load:
            self._per_load[name] = found.make(self._limits)
        return self._per_load[name]


LEAVES: frozenset[type] = frozenset((type(None), bool, int, float, str, memoryview, Named))


def build(noted: Any, builders: Builders, limits: Limits, leaves: frozenset[type] = LEAVES) -> Any:
    """`noted` with every `Call` in it replaced by what its builder makes.

    Raises:
        WireError: a builder refuses, something is of a type that is neither a container nor one of `leaves`,
            or over a limit.
    """
    return _Build(builders, limits, leaves).value(noted)


def load(
    message: bytes | bytearray | memoryview,
    builders: Builders,
    limits: Limits = DEFAULT_LIMITS,
) -> Any:
    """The value of a pickle that names nothing but the keys of `builders`.

    Byte strings come as `memoryview` into `message`; a class that is passed around comes as `Named`.

    Raises:
        WireError: kind ``forbidden`` for any other name or operation, ``too_large`` over a limit,
            ``malformed`` or ``version`` otherwise.
    """
    view = memoryview(message)
    limits.check_size(view.nbytes)
    machine = Machine(view, builders, limits)
    value = machine.run()
    if machine.at != len(view):
        raise WireError(f"{len(view) - machine.at} bytes after the end of the pickle")
    return build(value, builders, limits)
