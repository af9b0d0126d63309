"""Parts that are installed, found by their entry points. Nothing here names a part.

A package offers a part under one of the groups of `GROUPS`; the entry point refers to the part's table
(`runtime.parts`). Reading entry points imports nothing: a part is imported when it is asked for by name, so
one that cannot be imported is in nobody's way until somebody configures it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points

GROUPS: Mapping[str, str] = {
    "arm": "dexrun.arms",
    "leader": "dexrun.leaders",
    "camera": "dexrun.cameras",
    "force": "dexrun.force",
    "policy": "dexrun.policies",
    "detector": "dexrun.perception",
    "segmenter": "dexrun.perception",
    "tracker": "dexrun.perception",
}
"""The group of every kind of part. Where two kinds share one, names are ``<kind>.<name>``."""

OWN = "dexrun"
"""The distribution that brings the built-in parts."""

STALE = "no built-in parts are registered: reinstall dexrun (pip install -e .)"


class PartError(Exception):
    """A part is not installed, or cannot be used. The message is one line."""


@dataclass(slots=True)
class Part:
    """One installed part.

    Attributes:
        kind: a key of `GROUPS`. name: what the configuration calls it.
        distribution, version: the package that brings it.
        reference: where it is, ``module:attribute``.
        error: why it cannot be used, once that is known; one line.
    """

    kind: str
    name: str
    distribution: str
    version: str
    reference: str
    error: str = ""
    _entry: EntryPoint | None = field(default=None, repr=False)
    _loaded: object = field(default=None, repr=False)

    @property
    def origin(self) -> str:
        """The package and its version."""
        return f"{self.distribution} {self.version}"

    def load(self) -> object:
        """What its entry point refers to; imported at the first call.

        Raises:
            PartError: it cannot be.
        """
        if self._loaded is None and not self.error:
            try:
                self._loaded = None if self._entry is None else self._entry.load()
            except (Exception, SystemExit) as error:  # whatever a foreign module does while it is imported
                self.error = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
        if self.error:
            raise PartError(f"{self.origin}: {self.error}")
        return self._loaded


class Registry:
    """All parts that `entries` offer; built-in ones first, then by distribution and name."""

    def __init__(self, entries: Iterable[EntryPoint]) -> None:
        found = [part for entry in entries if (part := _part(entry)) is not None]
        found.sort(key=lambda part: (part.distribution != OWN, part.distribution, part.kind, part.name))
        self.parts: list[Part] = found
        self._named: dict[tuple[str, str], Part] = {}
        for part in found:
            if part.error:  # it has no name
                continue
            first = self._named.setdefault((part.kind, part.name), part)
            if first is not part:
                part.error = f"{first.origin} has a {part.kind} of this name already"

    def names(self, kind: str) -> list[str]:
        """What there is of a kind, whether or not it can be used."""
        return sorted(name for each, name in self._named if each == kind)

    def part(self, kind: str, name: str) -> Part:
        """The part of this name.

        Raises:
            PartError: there is none.
        """
        part = self._named.get((kind, name))
        if part is None:
            known = ", ".join(self.names(kind)) or "none"
            raise PartError(f"no {kind} {name!r}; installed: {known}")
        return part

    @property
    def stale(self) -> bool:
        """Whether the built-in parts are missing: the metadata are older than the code."""
        return all(part.distribution != OWN for part in self.parts)


@functools.cache
def installed() -> Registry:
    """The parts that this environment has; read once."""
    points = entry_points()
    return Registry(entry for group in dict.fromkeys(GROUPS.values()) for entry in points.select(group=group))


def _part(entry: EntryPoint) -> Part | None:
    kinds = [kind for kind, group in GROUPS.items() if group == entry.group]
    kind, name, error = kinds[0], entry.name, ""
    if len(kinds) > 1:
        prefix, _, rest = entry.name.partition(".")
        if prefix in kinds and rest:
            kind, name = prefix, rest
        else:
            kind = entry.group.rpartition(".")[2]
            either = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
            error = f"the name of an entry point of {entry.group} begins with {either} and a dot"
    brought = getattr(entry, "dist", None)
    distribution = "?" if brought is None else brought.name
    version = "?" if brought is None else brought.version
    return Part(kind, name, distribution, version, entry.value, error, entry)
