"""The container image: what its file copies is there, and where Docker is, it is built and runs."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.dexrun.rig import ROOT


def _docker() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0


def test_all_that_the_image_is_made_of_is_let_through() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = {source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]}
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert copied == let_through
    assert all((ROOT / source).exists() for source in copied)
    debian = next(
        line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("DEBIAN :=")
    )
    installed = " ".join(lines)
    assert all(package in installed for package in debian.partition(":=")[2].split())


@pytest.mark.slow
@pytest.mark.skipif(not _docker(), reason="no Docker daemon here")
def test_the_image_is_built_and_clears_the_table() -> None:
    def docker(*words: str) -> str:
        done = subprocess.run(["docker", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    docker("build", "-t", "dexrun-test", ".")
    assert "calibrate" in docker("run", "--rm", "dexrun-test", "--help")
    run = ("run", "--rm", "dexrun-test", "--config", "/opt/dexrun/config.toml", "--realtime.clock", "stepped")
    docker(*run, "--runs", "/data/runs")
