"""Command lines, tables and programs that the pages show are ones that are accepted."""

from __future__ import annotations

import argparse
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dexrun.__main__ import main
from dexrun.config.checks import check
from dexrun.config.load import load, load_tables
from dexrun.config.settings import Settings
from dexrun.config.sources import parse_arguments
from dexrun.serve.command import expand
from dexrun.training.configuring import load_training
from drivers.feetech.calibration import save_calibration
from tests.dexrun.test_checkpoint_folders import checkpoint
from tests.feetech.rig import CALIBRATION
from tests.plugins.distribution import distribution, installed

ROOT = Path(__file__).parents[1]
PAGES = (
    *("README.md", "CONTRIBUTING.md"),
    *("docs/tutorial.md", "docs/remote.md", "docs/serve.md", "docs/rollout.md", "docs/training.md"),
    "docs/setup.md",
)
CHECKPOINT = re.compile(r"outputs/\w+/(last|best)\b")
CONTINUED = re.compile(r"\\\n\s*")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall((ROOT / page).read_text()) if kind == language]


LINES = sorted(
    {
        line
        for page in PAGES
        for text in blocks(page, "")
        for line in CONTINUED.sub(" ", text).splitlines()
        if line[:7] == "dexrun "
    }
)


class ParsedError(Exception):
    """A command's parser took everything."""


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands end as soon as their command line is read."""
    parse = argparse.ArgumentParser.parse_known_args

    def stop(parser: Any, *given: Any, **more: Any) -> Any:
        _, rest = parse(parser, *given, **more)
        if parser.prog not in ("dexrun replay", "dexrun doctor"):  # there the rest is the configuration's
            assert rest == []
        parse_arguments(rest)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)


@pytest.fixture(autouse=True)
def _example(tmp_path: Path) -> Iterator[None]:
    """The policy that the tutorial installs."""
    code = (ROOT / "examples" / "nearest_pose_policy" / "nearest_pose.py").read_text()
    points = {"dexrun.policies": {"nearest_pose": "nearest_pose:NearestPoseTable"}}
    distribution(tmp_path / "site", "dexrun-nearest-pose", points, {"nearest_pose.py": code})
    with installed(tmp_path / "site"):
        yield


def test_there_are_lines() -> None:
    assert len(LINES) > 20
    assert blocks("docs/tutorial.md", "python")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.usefixtures("stopped")
def test_a_command_line_is_accepted(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    trained = CHECKPOINT.search(line) and str(checkpoint(tmp_path / "trained"))
    words = shlex.split(CHECKPOINT.sub(trained or "", line), comments=True)[1:]
    if words[:2] == ["train", "--resume"]:
        parse_arguments(words[1:])
    elif words[0] == "train":
        load_training(words[1:], {})
    elif words[0] == "serve":
        load(expand(words[1:]), {})
    elif words[0].startswith("-"):
        load([word for word in words if word != "--check"], {})
    else:
        with pytest.raises(ParsedError):
            main(words)


def merged(table: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = {**table, **other}
    for key in table.keys() & other.keys():
        if isinstance(table[key], dict):
            both[key] = merged(table[key], other[key])
    return both


def loaded(tables: dict[str, Any]) -> Settings:
    settings = load_tables(Settings, tables, [], "a page")
    check(settings)
    return settings


@pytest.mark.parametrize("text", blocks("README.md", "toml"))
def test_a_table_is_accepted(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the calibration that it names is
    (tmp_path / "calibration").mkdir()
    save_calibration(tmp_path / "calibration" / "follower.json", CALIBRATION)
    tables = merged(tomllib.loads((ROOT / "config.toml").read_text()), tomllib.loads(text))
    assert loaded(tables).arm.port.startswith("/dev/")


def test_the_tutorials_cube_is_accepted() -> None:
    (text,) = blocks("docs/tutorial.md", "toml")
    tables = merged(tomllib.loads((ROOT / "config.toml").read_text()), {"world": tomllib.loads(text)})
    assert len(loaded(tables).world.placed) == 1


def files_named(lines: Sequence[str]) -> set[str]:
    return {word for line in lines for word in shlex.split(line, comments=True) if word.endswith(".toml")}


def test_configurations_that_are_named_exist() -> None:
    assert files_named(LINES) >= {"config.toml", "docs/examples/remote-policy.toml"}
    assert all((ROOT / name).is_file() for name in files_named(LINES))
