"""The figures as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_COLUMNS = ("", "objects", "95 %", "scenes", "95 %", "s/object", "attempts", "drops", "clips", "starved")


def table(found: Mapping[str, Mapping[str, Any]], pairs: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each candidate, and one for each comparison."""
    rows: list[Sequence[str]] = [_COLUMNS, *(_row(name, each) for name, each in found.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines += [f"{name}: {_pair(each)}" for name, each in pairs.items()]
    lines += [
        f"{name}: {each['errors']} scenes have no result; asked again, they are played again"
        for name, each in found.items()
        if each["errors"]
    ]
    return "\n".join([*lines, ""])


def _row(name: str, each: Mapping[str, Any]) -> Sequence[str]:
    seconds = each["seconds_per_object"]
    return (
        name,
        *_rate(each["objects"]),
        *_rate(each["scenes"]),
        "-" if seconds is None else f"{seconds:.1f}",
        str(each["attempts"]),
        str(each["drops"]),
        str(sum(each["clips"].values())),
        str(each["starved_ticks"]),
    )


def _rate(share: Mapping[str, Any]) -> tuple[str, str]:
    if share["rate"] is None:
        return "-", "-"
    low, high = share["interval_95"]
    counts = f"{share['successes']}/{share['count']} {100 * share['rate']:.1f} %"
    return counts, f"{100 * low:.1f} to {100 * high:.1f}"


def _pair(each: Mapping[str, Any]) -> str:
    return (
        f"on the same {each['scenes']} scenes, cleared by the first alone {each['only_first']}, "
        f"by the second alone {each['only_second']} (p = {each['p_scenes']:.3g}); more objects "
        f"{each['more_objects_first']} to {each['more_objects_second']} (p = {each['p_objects']:.3g})"
    )
