"""What an export noted of a data set (``dexrun.json``, a zarr store's attributes), looked at before use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from policies.data.set_files import small_json

NOTES = "dexrun.json"


class _Said(BaseModel):
    """What else it says is kept as it is."""

    model_config = ConfigDict(extra="allow")


class _Gap(_Said):
    start_s: FiniteFloat
    duration_s: FiniteFloat


class _Sensor(_Said):
    largest_stamp_error_s: FiniteFloat = 0.0
    gaps: list[_Gap] = []


class _Episode(_Said):
    episode: int
    source: str = ""
    task: str = ""
    label: str = ""
    dropped_while_recording: dict[str, int] = {}
    sensors: dict[str, _Sensor] = {}


class _Notes(_Said):
    episodes: list[_Episode] = []
    largest_stamp_error_s: FiniteFloat = 0.0
    gaps: int = 0
    fps: FiniteFloat = 0.0
    units: dict[str, Any] | str | None = None
    joints: list[str] = []
    cameras: dict[str, dict[str, Any]] = {}
    grippers: list[int] = []
    latency_s: dict[str, Any] = {}
    tip_camera: str = ""


def convention(units: Any) -> str:
    """The convention of the `units` that a data set says, a table or a word; empty if it says none.

    Raises:
        ValueError: it is no word.
    """
    said = units.get("convention", "") if isinstance(units, Mapping) else units or ""
    if not isinstance(said, str):
        raise ValueError(f"units: {str(said)[:50]} is no convention")
    return said


def notes(found: Any, where: str) -> dict[str, Any]:
    """What `found` in `where` says, each with the type that readers count on.

    Raises:
        ValueError: it is none of that; one line that says where.
    """
    try:
        return _Notes.model_validate(found).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {at + ': ' if at else ''}{first['msg']}") from None


def notes_at(path: Path) -> dict[str, Any]:
    """What the file says; nothing if there is none.

    Raises:
        OSError, ValueError, RecursionError: it is no such file, or larger than what is looked at.
    """
    return notes(small_json(path), path.name) if path.is_file() else {}
