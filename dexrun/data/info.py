"""``dexrun info RUN|DATASET``: what is inside a recording or a data set."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dexrun.exit_codes import BAD_CONFIGURATION, OK
from dexrun.export.contents import Content, Row
from dexrun.export.errors import ExportError
from dexrun.export.look import inspect
from dexrun.printing import fail, say


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="dexrun info",
        description="Say what is inside a recording or a data set.",
        epilog="example: dexrun info runs/latest data/mine",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="RUN|DATASET")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON line for each")
    arguments = parser.parse_args(list(argv))
    code = OK
    for path in arguments.paths:
        try:
            content = inspect(path)
        except ExportError as error:
            fail(error)
            code = BAD_CONFIGURATION
            continue
        if arguments.json:
            say(json.dumps(content.as_json()) + "\n")
        else:
            say(describe(content))
    return code


def describe(content: Content) -> str:
    """For people: facts, then topics or features with their rates, then a line for each episode."""
    count = len(content.episodes)
    lines = [f"{content.path}: {content.kind}, {count} episode{'s' * (count != 1)}, {_size(content.bytes)}"]
    lines += [f"  {key}: {_plain(value)}" for key, value in content.facts.items()]
    width = max((len(name) for name in content.features), default=0)
    for name, what in content.features.items():
        rates = [row.rates[name] for row in content.episodes if name in row.rates]
        lines.append(f"  {name:{width}}  {what}{_rate(rates)}")
    lines += [f"  {_episode(row)}" for row in content.episodes]
    return "".join(line + "\n" for line in lines)


def _rate(rates: Sequence[float]) -> str:
    if not rates:
        return ""
    low, high = min(rates), max(rates)
    return f", {low:g} Hz" if high - low < 0.1 else f", {low:g} to {high:g} Hz"


def _episode(row: Row) -> str:
    drops = ", ".join(f"{topic} {count}" for topic, count in row.drops.items())
    parts = [f"{row.name}: {row.seconds:.2f} s, {row.rows} rows"]
    parts += [f"label {row.label}"] if row.label else []
    parts += [f"dropped: {drops}" if drops else "no drops"] if row.label else []
    parts += [row.note] if row.note else []
    parts += [repr(row.task)] if row.task else []
    return ", ".join(parts)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_named(str(key))}: {one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _named(text: str) -> str:
    """`text`, quoted where it is empty or would not stay on its line."""
    return text if text.strip() and text.isprintable() else repr(text)


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.1f} {unit}"
