"""The packages of ``examples/``, built by pip and installed into a folder of their own, without network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.plugins.distribution import installed

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))
OFFLINE = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check")

Ran = subprocess.CompletedProcess[str]
Dexrun = Callable[..., Ran]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packages are installed. They are built from copies: nothing is left in the repository."""
    folder = tmp_path_factory.mktemp("examples")
    copies = [shutil.copytree(path, folder / "source" / path.name) for path in PACKAGES]
    pip = (sys.executable, "-m", "pip", "install", *OFFLINE, "--target", folder / "site", *copies)
    done = subprocess.run(pip, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def parts(site: Path) -> Iterator[None]:
    """The packages are installed in this process."""
    with installed(site):
        yield


@pytest.fixture(scope="session")
def environment(site: Path) -> dict[str, str]:
    """Of a process that has the packages installed."""
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}


@pytest.fixture(scope="session")
def dexrun(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Dexrun:
    """Runs a command line of dexrun with the packages installed, in an empty folder unless `cwd` is given."""
    empty = tmp_path_factory.mktemp("empty")

    def run(*words: str, cwd: Path = empty) -> Ran:
        command = (sys.executable, "-m", "dexrun", *words)
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)

    return run
