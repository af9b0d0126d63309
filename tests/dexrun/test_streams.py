"""Standard streams that are closed or full: the program does the same, and says so where it can."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK, STOPPED
from tests.dexrun.rig import ROOT, arguments

FULL = "dexrun: the standard output cannot be written: No space left on device\n"


def shell(redirections: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`words` for the program, started by a shell with `redirections`."""
    script = f'exec "$0" -m dexrun "$@" {redirections}'
    command = ["sh", "-c", script, sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("asked", ["--help", "--check"])
@pytest.mark.parametrize(
    ("redirections", "code", "said"),
    [(">&-", OK, ""), ("<&- >&- 2>&-", OK, ""), (">/dev/full", NOT_DONE, FULL)],
)
def test_what_is_printed_goes_nowhere(asked: str, redirections: str, code: int, said: str) -> None:
    done = shell(redirections, *(["--config", "config.toml"] if asked == "--check" else []), asked)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_locale_without_the_letters_gets_escapes(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    done = shell("", "--config", "config.toml", "--check", "--prompt", "to \u7ea2")
    assert (done.returncode, done.stderr) == (OK, "")
    assert "prompt 'to \\u7ea2'" in done.stdout


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full"])
def test_a_bad_configuration_that_nobody_is_told_of(redirections: str, tmp_path: Path) -> None:
    done = shell(redirections, *arguments(tmp_path, world__sed="7"))
    assert (done.returncode, done.stdout, done.stderr) == (BAD_CONFIGURATION, "", "")
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_standard_streams(tmp_path: Path) -> None:
    failing = {"planner__scene_reader__fault": "error_500", "planner__on_failure": "stop"}
    words = arguments(tmp_path, terminal__style="auto", planner__retries="0", **failing)
    assert shell("<&- >&- 2>&-", *words).returncode == STOPPED
    summary = json.loads((tmp_path / "latest" / "summary.json").read_text())
    assert "http_500" in summary["stop_reason"]
    assert summary["stop_reason"] in (tmp_path / "latest" / "log.txt").read_text()
