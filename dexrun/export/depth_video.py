"""Depth as LeRobot's own depth video: 12-bit codes on a logarithmic scale, losslessly encoded.

Facts of the format from LeRobot 0.6, ``configs/video.py`` and ``datasets/depth_utils.py``: codes 0 to 4095
for 0.01 m to 10 m, equally spaced in ``log(depth + 3.5 m)``; ``gray12le`` in HEVC. No reading (0) becomes
code 0 and is read back as 10 mm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_M, MAX_M, SHIFT_M = 0.01, 10.0, 3.5
LARGEST_CODE = 4095

INFO: dict[str, Any] = {
    "is_depth_map": True,
    "depth_unit": "mm",
    "video.depth_min": MIN_M,
    "video.depth_max": MAX_M,
    "video.shift": SHIFT_M,
    "video.use_log": True,
}


def code_table(scale_m: float) -> NDArray[np.uint16]:
    """The code of each of the 65536 depth values of a device whose unit is `scale_m`."""
    depth = np.arange(65536, dtype=np.float64) * scale_m
    low, high = np.log(MIN_M + SHIFT_M), np.log(MAX_M + SHIFT_M)
    share = (np.log(depth + SHIFT_M) - low) / (high - low)
    return np.asarray(np.rint(share * LARGEST_CODE).clip(0, LARGEST_CODE), np.uint16)
