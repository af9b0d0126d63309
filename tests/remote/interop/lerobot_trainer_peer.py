"""LeRobot's own ``lerobot-train`` with its own arguments; run by the interpreter of its own environment.

torchvision 0.28 reads no videos any more, and LeRobot 0.4.4 asks it to: PyAV reads them here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import av
import numpy as np
import torch

if not torch.cuda.is_available():  # PyPI's torchvision has them for CUDA alone
    OPERATORS: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for _name in ("nms", "qnms"):
        OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets import video_utils
from lerobot.scripts.lerobot_train import main


def frames(path: Any, timestamps: Sequence[float], tolerance_s: float, backend: str) -> torch.Tensor:
    """``[N, 3, H, W]`` from 0 to 1, those nearest to `timestamps`."""
    with av.open(str(path)) as container:
        there = [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    times = np.array([at for at, _ in there])
    places = [int(np.abs(times - at).argmin()) for at in timestamps]
    assert max(abs(times[place] - at) for place, at in zip(places, timestamps, strict=True)) < tolerance_s
    return torch.from_numpy(np.stack([there[place][1] for place in places])).permute(0, 3, 1, 2) / 255


video_utils.decode_video_frames_torchvision = frames
main()
