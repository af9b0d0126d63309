"""Changes that a file of a data set may have suffered, or been given: each a function of a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_VALUES: tuple[Any, ...] = (
    None, -1, 0, 1, 1e308, float("nan"), float("inf"), "", "x", "x" * 3000, [], {}, [None], {"a": 1}, 2**63,
    -(2**70), True, "../../etc/passwd", "\0", [[[[]]]], "<f8", "|O", 1e-320, "1",
)  # fmt: skip


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    keys: Iterable[Any] = value if isinstance(value, dict) else ()
    if isinstance(value, list):
        keys = range(min(6, len(value)))
    for key in keys:
        yield from _places(value[key], (*at, key))


def _json(value: Any, chance: random.Random) -> Any:
    *way, last = chance.choice(list(_places(value)) or [()]) or (None,)
    if last is None:
        return chance.choice(_VALUES)
    there = value
    for key in way:
        there = there[key]
    kind = chance.random()
    if kind < 0.25:
        del there[last]
    elif kind < 0.4 and type(there[last]) in (int, float):
        there[last] *= chance.choice((2, 10, -1, 1_000_000, 0.5))
    else:
        there[last] = chance.choice(_VALUES)
    return value


def _hdf5(path: Path, chance: random.Random) -> None:
    import h5py

    with h5py.File(path, "r+") as root:
        names: list[str] = []
        root.visit(names.append)
        name, kind = chance.choice(names), chance.randrange(5)
        short = root[name][:2] if isinstance(root[name], h5py.Dataset) and root[name].shape else 3
        del root[name]
        made = {1: short, 2: "text", 3: h5py.SoftLink(f"/{name}"), 4: [[[[[0, 0]]]]]}
        if kind in made:
            root[name] = made[kind]


def _parquet(path: Path, chance: random.Random) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    number = chance.randrange(table.num_columns)
    name, count = table.column_names[number], table.num_rows
    changed = (
        lambda: table.drop_columns([name]),
        lambda: table.slice(0, chance.randrange(count + 1)),
        lambda: table.set_column(number, name, pa.nulls(count, table.schema.field(number).type)),
        lambda: table.set_column(number, name, pa.array(["x"] * count)),
        lambda: table.set_column(number, name, pa.array([2**40] * count)),
        lambda: table.set_column(number, name, pa.array([float("nan")] * count)),
    )
    pq.write_table(chance.choice(changed)(), path)


def change(path: Path, chance: random.Random) -> None:
    """Change the file at `path`."""
    data, kind = path.read_bytes(), chance.random()
    path.unlink()  # it may be linked elsewhere
    if kind < 0.06:
        return
    if kind < 0.1:
        path.mkdir()
        return
    path.write_bytes(data[: chance.randrange(len(data) + 1)] if kind < 0.2 else data)
    if kind < 0.2:
        return
    if path.suffix == ".json" or path.name.startswith(".z"):
        path.write_text(json.dumps(_json(json.loads(data), chance)))
    elif path.suffix == ".jsonl":
        lines = data.decode().splitlines()
        number = chance.randrange(len(lines))
        lines[number] = json.dumps(_json(json.loads(lines[number]), chance))
        path.write_text("\n".join(lines))
    elif path.suffix == ".hdf5" and kind < 0.8:
        _hdf5(path, chance)
    elif path.suffix == ".parquet" and kind < 0.8:
        _parquet(path, chance)
    else:
        broken = bytearray(data)
        for _ in range(chance.choice((1, 3, 30))):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        path.write_bytes(broken)
