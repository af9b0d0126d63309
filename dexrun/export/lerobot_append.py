"""What a LeRobot data set says of itself, and whether what is appended to it means the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dexrun.export import lerobot
from dexrun.export.errors import ExportError
from dexrun.export.job import ExportPlan, report_of
from policies.data.noted import NOTES, notes_at
from runtime.units import Plausibility, UnitMap, translated


def read_report(meta: Path) -> dict[str, Any]:
    """What earlier exports noted of a data set; nothing in one that LeRobot made.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    report = notes_at(meta / NOTES)
    if isinstance(report.get("units"), dict):
        report["units"] = UnitMap.model_validate(translated(report["units"])).said()
    return report


def write_report(plan: ExportPlan, of: lerobot.LerobotLayout, before: Mapping[str, Any], first: int) -> None:
    """Note what was exported, and in which terms, after what was noted `before`.

    `first` is the number of the first episode of this export.
    """
    here = report_of(plan, first)
    report = {
        **_terms(plan, of),
        **here,
        "episodes": [*before.get("episodes", []), *here["episodes"]],
        "largest_stamp_error_s": max(before.get("largest_stamp_error_s", 0.0), here["largest_stamp_error_s"]),
        "gaps": before.get("gaps", 0) + here["gaps"],
    }
    lerobot.write_json(plan.folder / "meta" / NOTES, report)


def _terms(plan: ExportPlan, of: lerobot.LerobotLayout) -> dict[str, Any]:
    """What no reader can tell from the numbers themselves, and so must be the same in all of a data set."""
    return {
        "units": of.units.said(),
        "action": plan.action,
        "latency_s": of.shape.latencies(plan.options),
    }


def check_same(
    info: Mapping[str, Any], report: Mapping[str, Any], plan: ExportPlan, of: lerobot.LerobotLayout
) -> None:
    """Whether what is exported fits the data set that ``info.json`` and earlier exports' `report` describe.

    Raises:
        ExportError: frame rate, features, joints or depth's unit differ; or what joints are expressed in,
            which targets are the action, or latencies, as far as they were noted.
    """
    here = of.features()
    if info["fps"] != of.fps:
        raise ExportError(
            f"the data set has {info['fps']} fps, the export {of.fps}; give --fps {info['fps']}"
        )
    for key in sorted(info["features"].keys() | here.keys()):
        old, new = _kind(info["features"].get(key)), _kind(here.get(key))
        if old != new:
            raise ExportError(
                f"feature {key} is {old} in the data set and {new} in the export, which cannot be appended"
            )
        then, now = _depth_unit_m(info["features"][key]), _depth_unit_m(here[key])
        if then and now and not math.isclose(then, now, rel_tol=1e-6):
            raise ExportError(f"{key} is in units of {then:g} m, the export's camera in {now:g} m")
    said = info.get("units", of.units.convention)
    if said != of.units.convention:
        raise ExportError(
            f"the data set is in {said}, the export in {of.units.convention}; give --units {said}"
        )
    for name, value in _terms(plan, of).items():
        if difference := _difference(name, report.get(name, value), value):
            raise ExportError(f"{difference}, which cannot be appended")


def check_plausible(
    held: Mapping[str, Mapping[str, Any]], plan: ExportPlan, of: lerobot.LerobotLayout
) -> None:
    """Whether the statistics `held` by a data set, which may not say its units, can be of this arm in `of`'s.

    Raises:
        ExportError: they cannot; both readings are in the line.
    """
    known = Plausibility(plan.slots[0].ref.joints, of.units)
    for key in (lerobot.STATE, lerobot.ACTION):
        if doubt := known.doubt(held[key]["min"], held[key]["max"], spans=True) if key in held else "":
            raise ExportError(f"{key} in the data set: {doubt}; say which with --units")


def _difference(name: str, old: Any, new: Any) -> str:
    """Which part of `old` is not that of `new`; empty if all is the same."""
    if old == new:
        return ""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        parts = (_difference(f"{name}.{key}", old.get(key), new.get(key)) for key in {**old, **new})
        return next((part for part in parts if part), "")
    shown = ["absent" if value in (None, {}) else value for value in (old, new)]
    return f"{name} is {shown[0]} in the data set and {shown[1]} in the export"


def _depth_unit_m(feature: Mapping[str, Any]) -> float | None:
    """What one count of depth images is, as far as the feature says."""
    about = feature.get("info") or {}
    if feature["dtype"] != "image":  # video holds metres, whatever the camera counts in
        return None
    return about.get("depth_scale_m") or (lerobot.MM if about.get("depth_unit") == "mm" else None)


def _kind(feature: Mapping[str, Any] | None) -> str:
    if feature is None:
        return "absent"
    names = "" if feature["dtype"] in ("video", "image") else f" {feature['names']}"
    return f"{feature['dtype']} {list(feature['shape'])}{names}"
