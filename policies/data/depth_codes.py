"""Depth as LeRobot's data sets hold it, back into metres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policies.data.dataset import Array

_LARGEST_CODE = 4095
_UNITS_M = {"mm": 0.001, "m": 1.0, "cm": 0.01}


def metres_by_code(info: Mapping[str, Any]) -> Array:
    """Of a depth video: float32 ``[4096]``; code 0, the nearest, is where there was no reading.

    `info` is the feature's: codes are spaced equally in ``log(depth + shift)``, or equally.

    Raises:
        KeyError: it does not say which depths it spans.
    """
    low, high = float(info["video.depth_min"]), float(info["video.depth_max"])
    share = np.arange(_LARGEST_CODE + 1) / _LARGEST_CODE
    if info.get("video.use_log", True):
        shift = float(info["video.shift"])
        ends = np.log(low + shift), np.log(high + shift)
        metres = np.exp(ends[0] + share * (ends[1] - ends[0])) - shift
    else:
        metres = low + share * (high - low)
    metres[0] = 0.0
    return np.asarray(metres, np.float32)


def unit_m(info: Mapping[str, Any]) -> float:
    """Of depth that is stored as 16-bit images.

    Raises:
        KeyError: it says none that is known.
    """
    if "depth_scale_m" in info:
        return float(info["depth_scale_m"])
    return _UNITS_M[info.get("depth_unit", "mm")]
