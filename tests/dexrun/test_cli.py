"""The front door."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dexrun.__main__ import main
from dexrun.exit_codes import BAD_CONFIGURATION, OK


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == OK
    assert "--TABLE.KEY VALUE" in capsys.readouterr().out


def test_help_after_other_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "none.toml", "--help"]) == OK
    assert capsys.readouterr().out.startswith("usage:")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == OK
    assert capsys.readouterr().out.startswith("dexrun ")


def test_nothing_asked_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == BAD_CONFIGURATION
    assert capsys.readouterr().out.startswith("usage:")


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grsp"]) == BAD_CONFIGURATION
    assert "unknown command 'grsp'" in capsys.readouterr().err


def test_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "none.toml"]) == BAD_CONFIGURATION
    assert (
        capsys.readouterr().err
        == "dexrun: none.toml: no such file; --config names the configuration to use\n"
    )


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from dexrun.__main__ import main; main(['--help']); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "numpy", "pydantic", "mujoco", "cv2", "pyrealsense2", "openai"):
        assert f"'{heavy}'" not in out


def test_tracebacks_of_every_command_go_without_the_values_of_variables(tmp_path: Path) -> None:
    """Commands that open no log of a run's, `serve` for one, log as loguru does by itself."""
    script = tmp_path / "script.py"  # a file, since the values are shown below the source's lines
    script.write_text("""
from dexrun.__main__ import main
main(["--version"])
from loguru import logger
def ask(token):
    raise ValueError(len(token))
try:
    ask("-".join(["open", "sesame"]))
except ValueError:
    logger.exception("failed")
""")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGURU_")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    run = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, env=environment
    )
    assert "ValueError: 11" in run.stderr
    assert "open-sesame" not in run.stderr
