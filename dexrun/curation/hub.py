"""Data sets to and from the Hugging Face Hub, by its own library; the token comes from ``HF_TOKEN``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dexrun.export import target
from dexrun.export.errors import ExportError
from policies.data.dataset import DatasetError
from policies.data.opening import open_dataset
from policies.data.set_files import small_json
from runtime.recording.bounds import one_line


def push(path: Path, repo: str, revision: str | None, *, private: bool = False) -> str:
    """Upload the data set at `path`, in one commit; returns where it is, in a line.

    Of LeRobot's the tag is the version of the format, by which its own reader looks for it.

    Raises:
        DatasetError: it is no data set, or the Hub refuses it.
    """
    open_dataset(path).close()
    with _told(repo):
        api = _api()
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        if path.is_file():
            api.upload_file(
                path_or_fileobj=str(path), path_in_repo=path.name, repo_id=repo, repo_type="dataset",
                revision=revision,
            )  # fmt: skip
        else:
            api.upload_folder(
                folder_path=str(path), repo_id=repo, repo_type="dataset", revision=revision,
                ignore_patterns=[".*", "**/.*.partial-*"] if not (path / ".zgroup").is_file() else None,
            )  # fmt: skip
        info = path / "meta" / "info.json"
        if info.is_file() and revision is None:
            tag = str(small_json(info)["codebase_version"])
            with contextlib.suppress(Exception):  # one of that name from before
                api.delete_tag(repo, tag=tag, repo_type="dataset")
            api.create_tag(repo, tag=tag, repo_type="dataset")
    return f"{path}: pushed to {api.endpoint}/datasets/{repo}"


def pull(repo: str, to: Path, revision: str | None) -> str:
    """Download a data set to `to`, whole or not at all; returns what is there, in a line.

    Raises:
        DatasetError: there is none, it is none that is read here, or something is at `to` already.
    """
    with target.building(to) as draft, _told(repo):
        files = draft / "files"
        _library().snapshot_download(
            repo, repo_type="dataset", revision=revision, local_dir=str(files), endpoint=_api().endpoint
        )
        for entry in list(files.iterdir()):
            if entry.name != ".cache":
                entry.rename(draft / entry.name)
        _library_leftovers(files)
    with contextlib.suppress(DatasetError):
        dataset = open_dataset(to)
        return f"{to}: {len(dataset.episodes)} episodes, {dataset.format}"
    return f"{to}: the files of {repo}; dexrun data info says what is in them"


def _library_leftovers(files: Path) -> None:
    import shutil

    shutil.rmtree(files, ignore_errors=True)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise DatasetError("the Hub needs the package huggingface_hub: pip install 'dexrun[hub]'") from None
    return huggingface_hub


def _api() -> Any:
    return _library().HfApi()


@contextlib.contextmanager
def _told(repo: str) -> Iterator[None]:
    """Whatever the Hub says, as one line."""
    try:
        yield
    except (DatasetError, KeyboardInterrupt):
        raise
    except Exception as error:  # its library raises its own, its HTTP client's, and the system's
        raise ExportError(f"{repo}: {one_line(error)}", usage=False) from None
