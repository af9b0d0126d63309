"""EdgeTAM with timm, which it needs, and the torchvision that timm needs; weights are small and random."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.remote.interop.peers import GUARD_S, ROOT, needs


@needs("edgetam")
@pytest.mark.slow
def test_a_folder_of_transformers_own_tracks_as_its_own_session_does(tmp_path: Path) -> None:
    path = os.pathsep.join((str(ROOT), str(ROOT / ".venv-edgetam/packages")))
    done = subprocess.run(
        [sys.executable, "-m", "tests.remote.interop.edgetam_peer", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=GUARD_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "frames with a mask, equal to transformers' own" in done.stdout
