"""LeRobot's parquet tables, with the schema metadata that `datasets` and pandas expect in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexrun.export.lerobot_language import COLUMNS, Said, array, arrow_type, described

FeatureEntry = Mapping[str, Any]


def data_schema(features: Mapping[str, FeatureEntry]) -> Any:
    """Arrow's schema of the frames; videos are not in it."""
    import pyarrow as pa

    fields, all_of_them = [], {}
    for key, feature in features.items():
        if feature["dtype"] != "video":
            fields.append(pa.field(key, _arrow_type(key, feature)))
            all_of_them[key] = _described(key, feature)
    about = json.dumps({"info": {"features": all_of_them}})
    return pa.schema(fields, metadata={"huggingface": about})


def _arrow_type(key: str, feature: FeatureEntry) -> Any:
    import pyarrow as pa

    if key in COLUMNS:
        return arrow_type(key)
    if feature["dtype"] == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    scalar = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}[feature["dtype"]]
    shape = feature["shape"]
    return scalar if list(shape) == [1] else pa.list_(scalar, shape[0])


def _described(key: str, feature: FeatureEntry) -> dict[str, Any]:
    """A feature as `datasets` describes it."""
    if key in COLUMNS:
        return described(key)
    if feature["dtype"] == "image":
        return {"_type": "Image"}
    value = {"dtype": feature["dtype"], "_type": "Value"}
    shape = feature["shape"]
    return value if list(shape) == [1] else {"feature": value, "length": shape[0], "_type": "Sequence"}


def data_table(
    features: Mapping[str, FeatureEntry],
    columns: Mapping[str, NDArray[Any]],
    pictures: Mapping[str, Sequence[bytes]],
    said: Mapping[str, Sequence[Sequence[Said]]] = MappingProxyType({}),
) -> Any:
    """One episode's frames. `pictures` are encoded images, for features of dtype ``image``; `said` is what
    is in language columns.
    """
    import pyarrow as pa

    schema = data_schema(features)
    arrays = []
    for entry in schema:
        if entry.name in pictures:
            rows = [{"bytes": data, "path": None} for data in pictures[entry.name]]
            arrays.append(pa.array(rows, entry.type))
            continue
        if entry.name in said:
            arrays.append(array(said[entry.name], entry.name))
            continue
        values = np.ascontiguousarray(columns[entry.name])
        if pa.types.is_fixed_size_list(entry.type):
            flat = pa.array(values.reshape(-1), entry.type.value_type)
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, entry.type.list_size))
        else:
            arrays.append(pa.array(values.reshape(-1), entry.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def episode_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """The episodes' metadata, one row for each."""
    import pyarrow as pa

    return pa.Table.from_pydict({key: [row[key] for row in rows] for key in rows[0]})


def task_table(tasks: Sequence[str], key: str = "task_index") -> Any:
    """A data frame of numbers called `key`, whose index is the tasks' names, as pandas stores it."""
    import pyarrow as pa

    index = "__index_level_0__"
    table = pa.table({key: pa.array(range(len(tasks)), pa.int64()), index: pa.array(tasks, pa.string())})
    text = {
        "field_name": index,
        "name": None,
        "pandas_type": "unicode",
        "numpy_type": "object",
        "metadata": None,
    }
    number = {
        "field_name": key,
        "name": key,
        "pandas_type": "int64",
        "numpy_type": "int64",
        "metadata": None,
    }
    columns = {
        "field_name": None,
        "name": None,
        "pandas_type": "unicode",
        "numpy_type": "object",
        "metadata": {"encoding": "UTF-8"},
    }
    about = {
        "index_columns": [index],
        "column_indexes": [columns],
        "columns": [number, text],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(about)})


def read_table(path: Path) -> Any:
    """A parquet file's table, as it is."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return file.read()
