"""``dexrun --plugins``: which parts are installed, from where, and why one cannot be used."""

from __future__ import annotations

from runtime import plugins
from runtime.parts import table_of

_HEAD = ("KIND", "NAME", "FROM", "TABLE, OR WHY IT CANNOT BE USED")


def listing() -> str:
    """One line for each part, under a head; every part is imported to see whether that works."""
    registry = plugins.installed()
    rows = [_HEAD] + [(part.kind, part.name, part.origin, _state(part)) for part in registry.parts]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD) - 1)]
    lines = ["  ".join([*map(str.ljust, row, widths), row[-1]]) for row in rows]
    return "\n".join([*lines, *([plugins.STALE] if registry.stale else []), ""])


def _state(part: plugins.Part) -> str:
    try:
        table_of(part)
    except plugins.PartError:
        return f"error: {part.error}"
    return part.reference
