"""The judge's figures for the summary: what was asked for against the simulation's ground truth."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drivers.world.client import WorldClient
    from drivers.world.judge import JudgeReport, ObjectReport


def score(world: WorldClient, prompt: str, timeout_s: float) -> dict[str, Any]:
    """``{objects_total, objects_in_tray, success, asked}`` now.

    Raises:
        drivers.world.client.WorldError: the world is gone, or did not answer within `timeout_s` of wall time.
    """
    return judged(world.judge(timeout_s), prompt)


def judged(report: JudgeReport, prompt: str) -> dict[str, Any]:
    """A prompt that names objects has succeeded when those, and no others, are in the tray."""
    asked = [each for each in report.objects if _named(each, prompt)] or list(report.objects)
    names = {each.name for each in asked}
    in_tray = {each.name for each in report.objects if each.in_tray}
    return {**report.summary(), "success": in_tray == names, "asked": sorted(names)}


def _named(entry: ObjectReport, prompt: str) -> bool:
    words = prompt.lower()
    shapes = [shape for shape in _SHAPES if shape in words]
    if entry.color in words:
        beside = re.findall(rf"{entry.color} ({'|'.join(_SHAPES)})", words)
        return entry.shape in beside if beside else not shapes or entry.shape in shapes
    return not any(color in words for color in _COLORS) and entry.shape in shapes


_SHAPES = ("cuboid", "cylinder", "cube")
_COLORS = ("red", "green", "blue", "yellow", "orange", "purple")
