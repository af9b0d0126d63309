"""What came to a data set after an edit in place is not lost when that edit is taken back."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dexrun.curation import journal
from dexrun.curation.command import main
from tests.export.synthetic import Made, write, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was edited in place: one of its two episodes is left out."""
    path = tmp_path / "run"
    write_run(path, Made(seconds=0.3), Made(seconds=0.4, seed=1))
    assert main(["drop", str(path), "--episodes", "0"]) == 0
    assert len(episodes(path)) == 1
    return path


def episodes(path: Path) -> list[str]:
    return sorted(file.name for file in path.glob("episodes/*.mcap"))


@pytest.mark.parametrize("what", ["recorded", "annotated", "another", "removed"])
def test_what_came_since_is_kept_beside_it(run: Path, what: str, capsys: Any) -> None:
    if what == "recorded":  # the run was gone on with
        write(run / "episodes" / "episode_000007.mcap", Made(seconds=0.2, seed=2, index=7))
    elif what == "annotated":
        (run / "episodes" / "episode_000001.annotation.mcap").write_bytes(b"masks")
    elif what == "another":  # a data set of that name, made after the edited one had gone elsewhere
        run.rename(run.with_name("moved"))
        write_run(run, Made(seconds=0.2), Made(seconds=0.2), Made(seconds=0.2))
    else:
        (run / "episodes" / "episode_000000.mcap").unlink()
    before = {file.relative_to(run): file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert main(["undo", str(run)]) == 0
    kept = run.with_name("run-replaced-1")
    assert f"had been changed since that edit; what was there is now {kept}" in capsys.readouterr().out
    assert {file.relative_to(kept): file.read_bytes() for file in kept.rglob("*") if file.is_file()} == before
    assert len(episodes(run)) == 2


def test_what_nobody_touched_is_gone_with_its_edit(run: Path) -> None:
    assert main(["drop", str(run), "--episodes", "0", "--to", str(run.with_name("none"))]) == 2
    assert main(["relabel", str(run), "--episodes", "0", "--label", "failure"]) == 0
    for left in (1, 2):
        assert main(["undo", str(run)]) == 0
        assert len(episodes(run)) == left
    assert os.listdir(run.parent) == ["run"]


def test_an_edit_that_does_not_say_what_it_made_is_taken_back_with_care(run: Path) -> None:
    """One of an earlier version."""
    note = journal.entries(run)[0].folder / "what.json"
    note.write_text('{"what": "dexrun data drop run", "old_inode": 0}')
    shutil.copytree(run, run.with_name("run-replaced-1"))
    assert main(["undo", str(run)]) == 0
    assert len(episodes(run)) == 2
    assert len(episodes(run.with_name("run-replaced-2"))) == 1
