"""Data sets to and from a Hub: by its own library, against a stand-in on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from policies.data.dataset import STATE
from policies.data.opening import open_dataset
from tests.data_sets.hub_server import serving
from tests.export.synthetic import Made

ROOT = Path(__file__).parents[2]


def dexrun(endpoint: str, home: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the library reads its address and the token once."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_TOKEN": "hf_made_up",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "dexrun", "data", *map(str, arguments)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )


def test_a_data_set_goes_there_and_comes_back(run: Any, exported: Any, tmp_path: Path) -> None:
    folder, _ = run(Made(seconds=0.4))
    target, _ = exported(folder, "lerobot-v3")
    with serving() as (endpoint, hub):
        pushed = dexrun(endpoint, tmp_path / "hf", "push", target, "--repo", "owner/pick")
        assert pushed.returncode == 0, pushed.stderr
        assert pushed.stdout == f"{target}: pushed to {endpoint}/datasets/owner/pick\n"
        assert hub.tags == ["v3.0"], "by which LeRobot's own reader looks for it"
        files = {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()}
        assert {name: hub.files.get(name) for name in files} == files
        pulled = dexrun(endpoint, tmp_path / "hf", "pull", tmp_path / "back", "--repo", "owner/pick")
        assert pulled.returncode == 0, pulled.stderr
        none = dexrun(endpoint, tmp_path / "hf", "pull", tmp_path / "none", "--repo", "owner/nothing")
    assert pulled.stdout == f"{tmp_path / 'back'}: 1 episodes, lerobot-v3\n"
    one, two = (open_dataset(path).episodes[0] for path in (target, tmp_path / "back"))
    rows = np.arange(one.length)
    for feature in (STATE, "observation.images.head"):
        np.testing.assert_array_equal(one.read(feature, rows), two.read(feature, rows))
    assert none.returncode == 1
    assert none.stderr.startswith("dexrun: owner/nothing: 404 Client Error")
    assert none.stderr.count("\n") == 1
    assert not (tmp_path / "none").exists()
