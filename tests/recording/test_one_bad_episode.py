"""One episode of several that cannot be read costs itself alone, and is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dexrun.__main__ import main
from tests.recording.crafted import Content

GOOD = Path(__file__).parent / "data" / "teleop.mcap"

INSIDE = "damaged in the middle"  # which is not noticed before its messages are read
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "not an MCAP file"),
    "its end is cut off": (lambda data: data[:-20], "not finished (cut off)"),
    "of a newer format": (lambda data: data.replace(b"MCAP0\r\n", b"MCAP9\r\n"), "not an MCAP file"),
    INSIDE: (lambda data: data[:4000] + bytes(2000) + data[6000:], "episode_000001.mcap"),
}


@pytest.fixture(params=DAMAGES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A run whose second episode is damaged; what is to be said of it."""
    damage, why = DAMAGES[request.param]
    folder = tmp_path / "run" / "episodes"
    folder.mkdir(parents=True)
    shutil.copy(GOOD, folder / "episode_000000.mcap")
    (folder / "episode_000001.mcap").write_bytes(damage(GOOD.read_bytes()))
    return folder.parent, why


@pytest.mark.parametrize("run", [name for name in DAMAGES if name != INSIDE], indirect=True)
def test_the_others_are_shown(run: tuple[Path, str], capsys: Any) -> None:
    assert main(["info", str(run[0])]) == 0
    said = capsys.readouterr().out
    assert "episode_000000.mcap: " in said
    (line,) = [line for line in said.splitlines() if line.startswith("  unreadable: episode_000001.mcap: ")]
    assert run[1] in line


def test_the_others_are_verified_and_it_is_not_passed_over(run: tuple[Path, str], capsys: Any) -> None:
    assert main(["replay", "--verify", str(run[0])]) == 1
    out, err = capsys.readouterr()
    assert out == "episode 0: 510 ticks, every target the same\n"
    assert err.count("\n") == 1
    assert err.startswith("dexrun replay: not verified: ")
    assert run[1] in err
    assert (
        main(["replay", "--verify", "--episode", "0", str(run[0] / "episodes" / "episode_000000.mcap")]) == 0
    )


def test_one_of_a_newer_version_costs_itself_alone(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "episodes"
    folder.mkdir()
    content = Content.of(GOOD)
    tables = json.loads(content.records["config"]["json"])
    tables["safety"]["max_jerk_rad_s3"] = 100.0
    content.records["config"]["json"] = json.dumps(tables)
    content.write(folder / "episode_000000.mcap")
    shutil.copy(GOOD, folder / "episode_000001.mcap")
    assert main(["replay", "--verify", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == "episode 0: 510 ticks, every target the same\n"
    assert f"{folder / 'episode_000000.mcap'}: safety.max_jerk_rad_s3: unknown key" in err
    assert err.count("\n") == 1


def test_where_it_is_the_first_none_is_sent_in_its_place(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "episodes").mkdir()
    (tmp_path / "episodes" / "episode_000000.mcap").write_bytes(b"")
    shutil.copy(GOOD, tmp_path / "episodes" / "episode_000001.mcap")
    assert main(["replay", str(tmp_path)]) == 2
    assert "episode_000000.mcap: not an MCAP file; --episode 0 sends the next one" in capsys.readouterr().err


def test_of_several_paths_the_others_are_shown(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "bad.mcap").write_bytes(b"")
    assert main(["info", str(tmp_path / "bad.mcap"), str(GOOD)]) == 2
    out, err = capsys.readouterr()
    assert err == f"dexrun: {tmp_path / 'bad.mcap'}: not an MCAP file\n"
    assert out.startswith(f"{GOOD}: recording, 1 episode")


def test_where_there_is_no_other_it_is_one_line(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "episodes").mkdir()
    (tmp_path / "episodes" / "episode_000000.mcap").write_bytes(b"")
    for command in (["info"], ["replay", "--verify"]):
        assert main([*command, str(tmp_path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
