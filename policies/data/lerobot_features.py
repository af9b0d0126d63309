"""What LeRobot's ``info.json`` says of a data set's columns and pictures, by our names for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policies.data.dataset import (
    ACTION,
    DEPTH,
    FORCE,
    IMAGES,
    MASKS,
    STATE,
    TIP,
    DatasetError,
    Feature,
    Switches,
)
from policies.data.noted import convention
from policies.data.set_files import table_of

SUBTASK = "subtask_index"
"""A row's place in ``meta/subtasks.parquet``."""
LANGUAGE = "language_persistent"
MOST_NUMBERS = 200_000_000
"""Of one file that are read."""
_COUNTED = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_DEPTHS = ("_depth_raw", "_depth")
_ENDS = {DEPTH: _DEPTHS, IMAGES: _DEPTHS, MASKS: ("_mask",)}
"""How the key of a picture of each kind ends, after the camera's name."""


@dataclass(frozen=True)
class LerobotPicture:
    """Where a picture's feature is.

    Attributes:
        key: there. video: whether it is in one. kind: `IMAGES`, `DEPTH` or `MASKS`. info: how it is coded.
    """

    key: str
    video: bool
    kind: str
    info: Mapping[str, Any] = field(default_factory=dict)

    def feature(self, height: int, width: int) -> Feature:
        """What is read of it."""
        if self.kind == IMAGES:
            return Feature((height, width, 3), "uint8", "rgb")
        dtype, unit = ("float32", "m") if self.kind == DEPTH else ("uint8", "mask")
        return Feature((height, width), dtype, unit)


def features_of(
    path: Path, info: Mapping[str, Any], about: Mapping[str, Any], switches: Switches
) -> tuple[dict[str, str], dict[str, LerobotPicture], dict[str, Feature]]:
    """Columns and pictures by our names, and what they are; only what is switched on."""
    said: Mapping[str, Mapping[str, Any]] = info["features"]
    for name in (STATE, ACTION):
        if name not in said:
            raise DatasetError(f"{path}: there is no {name}; the data set has {', '.join(said)}")
    off = {FORCE: not switches.use_force, TIP: not switches.use_language_tip}
    unit = convention(about["kept"].get("units"))
    units = {STATE: unit, ACTION: unit, FORCE: "N", TIP: "m"}
    columns, features = {}, {}
    for key, one in said.items():
        if one["dtype"] in ("video", "image", "string", "language") or key in _COUNTED or off.get(key):
            continue
        columns[key] = key
        features[key] = _column(key, one, units.get(key, ""))
    pictures = _pictures(path, said, switches)
    for name, picture in pictures.items():
        shape = _shape(picture.key, said[picture.key])
        first = list(said[picture.key].get("names") or [])[:1]
        height, width = shape[1:] if first == ["channels"] else shape[:2]
        features[name] = picture.feature(height, width)
    wanted = {
        "use_force": switches.use_force and FORCE not in columns and FORCE,
        "use_language_tip": switches.use_language_tip and TIP not in columns and TIP,
        "use_mask": switches.use_mask
        and not any(picture.kind == MASKS for picture in pictures.values())
        and "masks (of dexrun export --masks images)",
        "use_depth": switches.use_depth
        and not any(picture.kind == DEPTH for picture in pictures.values())
        and "depth of one channel (colour that paints depth is none)",
    }
    for switch, what in wanted.items():
        if what:
            raise DatasetError(f"{path}: {switch}, and the data set has no {what}; switch it off")
    return columns, pictures, features


def _column(key: str, feature: Mapping[str, Any], unit: str) -> Feature:
    shape, names = _shape(key, feature), _names(feature)
    if shape == (1,) and key not in (STATE, ACTION, FORCE):
        shape = ()
    if names and len(shape) == 1 and len(names) != shape[0]:
        raise ValueError(f"info.json: {key} has {len(names)} names for {shape[0]} numbers")
    return Feature(shape, feature["dtype"], unit, names)


def _shape(key: str, feature: Mapping[str, Any]) -> tuple[int, ...]:
    shape = tuple(feature["shape"])
    if not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(f"info.json: {key} has the shape {list(shape)}; expected whole numbers above 0")
    return shape


def _names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    names = feature.get("names")
    if isinstance(names, Mapping):
        names = next(iter(names.values()), None)
    return tuple(str(name).removesuffix(".pos") for name in names) if isinstance(names, list) else ()


def _pictures(
    path: Path, said: Mapping[str, Mapping[str, Any]], switches: Switches
) -> dict[str, LerobotPicture]:
    there: dict[str, dict[str, LerobotPicture]] = {IMAGES: {}, DEPTH: {}, MASKS: {}}
    keys = {key: one for key, one in said.items() if one["dtype"] in ("video", "image")}
    for key, one in keys.items():
        name = key.removeprefix(IMAGES).removeprefix("observation.")
        info = {**(one.get("video_info") or {}), **(one.get("info") or {})}
        picture = LerobotPicture(key, one["dtype"] == "video", _kind(info), info)
        of = next((name.removesuffix(end) for end in _ENDS[picture.kind] if name.endswith(end)), name)
        if picture.kind == IMAGES and of != name:
            if not {f"{IMAGES}{of}", f"observation.{of}"} & set(keys):  # else it paints that camera's depth
                there[IMAGES][name] = picture
        elif of not in there[picture.kind] or not picture.video:  # as lossless images, where there are both
            there[picture.kind][of] = picture
    colours = there[IMAGES]
    for name in switches.cameras:
        if name not in colours:
            raise DatasetError(f"{path}: no camera {name!r}; there is: {', '.join(colours) or 'none'}")
    chosen = [name for name in colours if not switches.cameras or name in switches.cameras]
    wanted = {IMAGES: True, DEPTH: switches.use_depth, MASKS: switches.use_mask}
    return {
        f"{kind}{name}": picture
        for kind, pictures in there.items()
        for name, picture in pictures.items()
        if wanted[kind] and name in chosen
    }


def _kind(info: Mapping[str, Any]) -> str:
    if info.get("is_mask"):
        return MASKS
    return DEPTH if info.get("is_depth_map") or info.get("video.is_depth_map") else IMAGES


def subtasks_of(path: Path) -> dict[int, str]:
    """Their texts by number, where the data set names sub-steps."""
    file = path / "meta" / "subtasks.parquet"
    if not file.is_file():
        return {}
    found = table_of(file, most=MOST_NUMBERS).to_pydict()
    texts: list[Any] = next((found[name] for name in found if name != SUBTASK), [])
    return {int(n): str(t) for n, t in zip(found.get(SUBTASK, []), texts, strict=False)}


def subtasks_said(file: Path, episode: int) -> list[tuple[float, str]]:
    """An episode's sub-steps in LeRobot's language column, which all its rows repeat: from when on, and what.

    Raises:
        OSError: the file cannot be read.
        ValueError: or is none.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    column = pq.read_table(file, columns=[LANGUAGE], filters=pc.field("episode_index") == episode).column(0)
    said = (column[0].as_py() if len(column) else None) or []
    steps = [row for row in said if row["style"] == "subtask"]
    return sorted((float(row["timestamp"]), str(row["content"] or "")) for row in steps)
