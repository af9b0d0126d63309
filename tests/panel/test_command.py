"""``dexrun panel``: what it is told, and its life as a process."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dexrun.config.panel_options import SERVER_PACKAGES
from dexrun.exit_codes import BAD_CONFIGURATION, OK
from dexrun.panel.server.command import TOKEN_VARIABLE, main
from tests.dexrun.rig import ROOT


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == BAD_CONFIGURATION
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--port 99999: 0 to 65535" in refused(capsys, "--port", "99999")
    assert "nowhere.toml" in refused(capsys, "--config", "nowhere.toml")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1:{port}: Address already in use" in refused(capsys, "--port", port)
    assert "192.0.2.1:8470: " in refused(capsys, "--host", "192.0.2.1")  # another machine's
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    assert TOKEN_VARIABLE in refused(capsys, "--host", "192.0.2.1")


def test_the_extra_brings_what_is_asked_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {need.partition(">=")[0] for need in extras["panel"]} == set(SERVER_PACKAGES)
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert pinned >= set(SERVER_PACKAGES)


def test_it_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[arm]\nnonsense = 1\n")  # nobody has named it
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "dexrun.panel.server", "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        line = server.stdout.readline()
        assert line.startswith("panel at http://127.0.0.1:")
        connection = http.client.HTTPConnection("127.0.0.1", int(line.split("/")[2].rpartition(":")[2]))
        connection.request("GET", "/")
        assert b"<!doctype html>" in connection.getresponse().read().lower()
        connection.close()
        server.send_signal(signal.SIGTERM)
        assert server.wait() == OK
        assert "config.toml is left aside" in server.stderr.read()


def test_without_its_packages_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dexrun.panel.server.command.SERVER_PACKAGES", ("no_such_package",))
    assert main([]) == 2
    said = "dexrun panel: dexrun panel needs no_such_package: pip install 'dexrun[panel]'\n"
    assert capsys.readouterr().err == said
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
