"""torch is an extra: what computes no network does without it, and what does says so in one line.

``dexrun`` runs as a subprocess in which nothing of the extra ``learned`` can be imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dexrun.__main__ import main
from runtime.recording.reader import Recording
from tests.dexrun.rig import ROOT, arguments
from tests.dexrun.without_torch import LEARNED, python_path
from tests.remote.example import served

HELPS = """
import sys
from dexrun.__main__ import main
for words in sys.argv[1:]:
    try:
        code = main(words.split())
    except SystemExit as end:
        code = end.code
    if code:
        sys.exit(f"{words}: {code}")
"""
Ran = subprocess.CompletedProcess[str]
Dexrun = Callable[..., Ran]

REFUSED = "dexrun: policy type {!r} needs torch: pip install 'dexrun[learned]'\n"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return python_path(tmp_path / "no-torch")


@pytest.fixture
def dexrun(path: str) -> Dexrun:
    def run(*words: str, program: tuple[str, ...] = ("-m", "dexrun")) -> Ran:
        environment = {**os.environ, "PYTHONPATH": path}
        command = [sys.executable, *program, *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)

    return run


def test_torch_is_out_of_reach_there(dexrun: Dexrun) -> None:
    for package in LEARNED:
        assert f"No module named '{package}'" in dexrun(f"import {package}", program=("-c",)).stderr


def test_help_and_check(dexrun: Dexrun, tmp_path: Path) -> None:
    commands = ("", "serve ", "replay ", "export ", "info ", "view ", "convert ", "calibrate ")
    shown = dexrun(HELPS, *(f"{command}--help" for command in commands), program=("-c",))
    assert shown.returncode == 0, shown.stderr
    pages = [line for line in shown.stdout.splitlines() if line.startswith("usage: dexrun")]
    assert len(pages) == len(commands)
    assert all(line.startswith(f"usage: dexrun {words}") for line, words in zip(pages, commands, strict=True))
    assert dexrun(*arguments(tmp_path / "runs"), "--check").returncode == 0


def test_teleoperation_is_recorded(dexrun: Dexrun, tmp_path: Path) -> None:
    keys = {"mode": "teleop", "recording__episodes": "1", "recording__episode_s": "0.5"}
    ran = dexrun(*arguments(tmp_path / "runs", **keys, recording__reset_s="0.1"))
    assert ran.returncode == 0, ran.stderr
    (episode,) = Recording(tmp_path / "runs" / "latest").episodes
    assert len(episode.array("/ticks", "sent")) >= 15
    assert dexrun("info", str(tmp_path / "runs" / "latest")).returncode == 0


def test_a_policy_without_networks_is_served(path: str) -> None:
    with served("openpi", ("env", f"PYTHONPATH={path}")) as port:
        assert port > 0


@pytest.mark.parametrize("kind", ["act", "dexgrasp"])
def test_a_policy_that_needs_torch_is_refused_before_anything_is_touched(
    dexrun: Dexrun, tmp_path: Path, kind: str
) -> None:
    words = [*arguments(tmp_path / "runs"), "--policy.type", kind]
    ran = dexrun(*words, "--policy.worker", "process")
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", REFUSED.format(kind))
    ran = dexrun("serve", *words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == REFUSED.format(kind).replace("dexrun:", "dexrun serve:", 1)
    assert not (tmp_path / "runs").exists()


def test_teleoperation_does_not_ask_for_the_policys_packages(dexrun: Dexrun, tmp_path: Path) -> None:
    words = arguments(tmp_path / "runs", mode="teleop", policy__type="act")
    assert dexrun(*words, "--check").returncode == 0


def test_convert_says_what_it_needs(dexrun: Dexrun, tmp_path: Path) -> None:
    ran = dexrun("convert", str(tmp_path / "policy_best.ckpt"), str(tmp_path / "act.safetensors"))
    assert ran.returncode == 2
    assert ran.stderr == "dexrun: dexrun convert needs torch: pip install 'dexrun[learned]'\n"


@pytest.mark.parametrize(
    ("kind", "protocol", "package"),
    [
        ("groot", "gr00t", "zmq"),
        ("lerobot_grpc", "lerobot", "grpc"),
        ("openpi", "openpi", "websockets"),
        ("act_zmq", "act", "zmq"),
    ],
)
def test_a_protocols_package_is_named_too(
    kind: str,
    protocol: str,
    package: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # so Python says of a module that it cannot be imported
    assert main([*arguments(tmp_path / "runs"), "--policy.type", kind]) == 2
    needs = f"needs {package}: pip install 'dexrun[remote]'\n"
    assert capsys.readouterr().err == f"dexrun: policy type {kind!r} {needs}"
    assert main(["serve", *arguments(tmp_path / "runs"), "--protocol", protocol]) == 2
    assert capsys.readouterr().err == f"dexrun serve: protocol {protocol!r} {needs}"
