"""What is said in words beside LeRobot's frames, kept true where episodes are cut and put together anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dexrun.export.lerobot_language import PERSISTENT, Said, array
from policies.data.dataset import DatasetError
from policies.data.lerobot_features import SUBTASK


def renumbered(table: Any, known: Sequence[str], every: dict[str, int]) -> Any:
    """`table` with its sub-steps, numbered as in `known`, numbered as in `every`, which grows.

    Raises:
        DatasetError: a number that is not in `known`.
    """
    import pyarrow as pa

    at = table.schema.get_field_index(SUBTASK)
    if at < 0 or not known:
        return table
    old = table.column(at).to_numpy()
    if len(old) and not 0 <= old.min() <= old.max() < len(known):
        raise DatasetError(f"{SUBTASK} goes to {old.max()}; meta/subtasks.parquet has {len(known)}")
    new = np.array([every.setdefault(known[number], len(every)) for number in old.tolist()], np.int64)
    return table.set_column(at, table.schema.field(at), pa.array(new))


def cut(table: Any, first_s: float, last_s: float) -> Any:
    """`table`, of an episode of which the seconds from `first_s` to `last_s` are left, with its language
    columns' own times counted anew: what was being done at the cut is done from the first frame on.
    """
    at = table.schema.get_field_index(PERSISTENT)
    if at < 0 or not len(table):
        return table
    rows = _left(table.column(at)[0].as_py() or [], first_s, last_s)
    column = array([rows] * len(table), PERSISTENT)
    return table.set_column(at, table.schema.field(at), column.cast(table.schema.field(at).type))


def _left(rows: Sequence[Said], first_s: float, last_s: float) -> list[Said]:
    before: dict[tuple[str, str], Said] = {}
    after = []
    for row in sorted(rows, key=lambda each: float(each["timestamp"])):
        moved = {**row, "timestamp": float(np.float32(row["timestamp"] - first_s))}
        if row["timestamp"] <= first_s:
            before[row["style"] or "", row["role"]] = {**moved, "timestamp": 0.0}
        elif row["timestamp"] <= last_s:
            after.append(moved)
    return [*before.values(), *after]
