"""A checkpoint is whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.checkpoint import CheckpointError
from policies.training.checkpoints import STATE, CheckpointFolders


def fill(folder: Path) -> None:
    (folder / "policy.json").write_text(folder.name)
    (folder / STATE).mkdir()


def test_whoever_is_cut_off_leaves_what_was(tmp_path: Path) -> None:
    folders = CheckpointFolders(tmp_path)
    folders.write(3, fill)

    def killed(folder: Path) -> None:
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folders.write(6, killed)
    assert folders.last == tmp_path / "checkpoints/000003"
    assert (folders.last / STATE).is_dir()
    folders.close()
    again = CheckpointFolders(tmp_path)  # what was unfinished is gone
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000003"]
    again.close()


def test_a_full_disk_is_one_line_and_leaves_what_was(tmp_path: Path) -> None:
    folders = CheckpointFolders(tmp_path)
    folders.write(3, fill)

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="000006: cannot be written: No space left on device"):
        folders.write(6, full)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000003"]
    folders.close()


def test_one_training_writes_at_a_time(tmp_path: Path) -> None:
    folders = CheckpointFolders(tmp_path)
    with pytest.raises(CheckpointError, match="another training writes there"):
        CheckpointFolders(tmp_path)
    folders.close()
    CheckpointFolders(tmp_path).close()


def test_links_follow_a_folder_that_is_moved(tmp_path: Path) -> None:
    folders = CheckpointFolders(tmp_path / "here")
    folders.mark_best(folders.write(3, fill))
    folders.close()
    (tmp_path / "here").rename(tmp_path / "there")
    assert (tmp_path / "there/last/policy.json").is_file()
    assert (tmp_path / "there/best/policy.json").is_file()
