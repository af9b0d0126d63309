from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from dexrun.export.formats import format_named
from dexrun.export.job import ExportResult, export
from dexrun.export.options import ExportOptions
from tests.export.synthetic import Made, Truth, write_run

ROOT = Path(__file__).parents[2]
INTEROP = Path(__file__).parent / "interop"
GUARD_S = 600.0
"""LeRobot with its torch takes a minute to import, and a busy machine several."""


@pytest.fixture(scope="session", autouse=True)
def _rerun_keeps_to_itself() -> Iterator[None]:
    """Elsewhere than in continuous integration, rerun reports to its makers, whenever the network lets it.

    It is imported before the first test: it has sockets of its own, for as long as the process lives.
    """
    with mock.patch.dict(os.environ, CI="true"):
        import rerun  # noqa: F401

        yield


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[Path, list[Truth]]]:
    """Makes a run's folder of synthetic episodes."""

    def make(*episodes: Made, name: str = "run") -> tuple[Path, list[Truth]]:
        folder = tmp_path / name
        return folder, write_run(folder, *episodes)

    return make


@pytest.fixture
def exported(tmp_path: Path) -> Callable[..., tuple[Path, ExportResult]]:
    """Exports in this process."""

    def do(runs: Path | list[Path], name: str, to: str = "out", append: bool = False, **options: Any) -> Any:
        target = tmp_path / to
        chosen = ExportOptions(**{"jobs": 1, "missing_mask": "zeros", **options})
        given = [runs] if isinstance(runs, Path) else runs
        return target, export(given, format_named(name), target, chosen, append=append)

    return do


@pytest.fixture
def reader(tmp_path: Path) -> Callable[..., Any]:
    """Runs a reader's script in its own environment; skips where that is not installed."""

    def read(environment: str, script: str, *arguments: Any) -> Any:
        python = ROOT / environment / "bin" / "python"
        if not python.exists():
            pytest.skip(f"no {environment}: tests/remote/interop/make_envs.sh {environment[6:]} makes it")
        out = tmp_path / f"{script}-{len(list(tmp_path.glob('*.npz')))}.npz"
        home = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
        command = [python, INTEROP / script, arguments[0], out, *arguments[1:]]
        done = subprocess.run(
            [str(part) for part in command], env={**os.environ, **home}, capture_output=True, text=True,
            timeout=GUARD_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return np.load(out, allow_pickle=False)

    return read
