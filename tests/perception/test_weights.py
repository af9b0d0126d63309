"""A model's folder is looked at before anything is loaded; whatever is wrong with it is one line."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from safetensors.numpy import save_file

from planner.perception.config import ColorTrackerConfig
from planner.perception.weights import ModelFolder
from runtime.interfaces import PerceptionError
from runtime.torch_device import free_bytes, open_device

KEY = "perception.segmenter.path"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam2"}))
    save_file(
        {"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float16)}, tmp_path / "model.safetensors"
    )
    return tmp_path


def opened(path: Path) -> ModelFolder:
    return ModelFolder.open(KEY, path, ("sam2", "sam2_video"), "segmenter of SAM 2's kind")


def refusal(path: Path) -> str:
    with pytest.raises(PerceptionError) as caught:
        _ = opened(path).parameters
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(KEY)
    return str(caught.value)


def test_the_weights_are_counted_by_the_headers_alone(folder: Path) -> None:
    assert (opened(folder).kind, opened(folder).parameters) == ("sam2", 17)


def test_what_is_counted_is_what_is_loaded(folder: Path) -> None:
    """The one file, or the shards of the index; others may lie beside them."""
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    save_file({"c": np.zeros(7, np.float32)}, folder / shards[0])
    save_file({"d": np.zeros(2, np.float32), "e": np.zeros(2, np.float32)}, folder / shards[1])
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"c": shards[0], "d": shards[1], "e": shards[1]}}))
    assert opened(folder).parameters == 17
    (folder / "model.safetensors").rename(folder / "model_x.safetensors")
    assert opened(folder).parameters == 11
    for text in ("[]", "{}", '{"weight_map": 5}', '{"weight_map": {"c": "../c.safetensors"}}'):
        index.write_text(text)
        assert "lists no files of this folder" in refusal(folder)
    index.write_text("[" * 100_000)
    assert "index.json is not JSON" in refusal(folder)
    index.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    assert "there is no model.safetensors in it" in refusal(folder)
    (folder / "config.json").write_text('{"model_type": "sam2", "transformers_weights": "adapter_model.bin"}')
    assert "its weights are to be in model.safetensors, not in 'adapter_model.bin'" in refusal(folder)


def test_too_big_says_both_numbers(folder: Path) -> None:
    opened(folder).check_fits(4, 68, "cpu")
    with pytest.raises(
        PerceptionError, match=r"0\.0 million weights need 0\.00 GiB of cpu, where 0\.00 GiB are"
    ):
        opened(folder).check_fits(4, 67, "cpu")


def test_no_folder(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "sam2")
    assert "nothing is downloaded" in refusal(Path("facebook/sam2.1-hiera-tiny"))
    assert "config.json cannot be read: No such file" in refusal(tmp_path)
    assert "home directory" in refusal(Path("~nouser/x"))
    assert "File name too long" in refusal(tmp_path / ("x" * 300))


def test_a_folder_that_may_not_be_looked_into(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as changed:
        changed.setattr(Path, "stat", forbidden)
        said = refusal(folder)
    assert said.endswith(": Permission denied")


def test_another_kind_of_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert"}')
    assert "type 'bert' is no segmenter of SAM 2's kind; known types are sam2, sam2_video" in refusal(folder)
    for text in ("[]", "{}"):
        (folder / "config.json").write_text(text)
        assert "type '' is no" in refusal(folder)
    for text in ("{", "[" * 100_000):
        (folder / "config.json").write_text(text)
        assert "config.json is not JSON" in refusal(folder)


def test_weights_that_are_not_whole(folder: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for data in (whole[:-1], whole[:20], b""):
        file.write_bytes(data)
        assert refusal(folder).endswith("is no whole safetensors file")
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert refusal(folder).endswith("is a pointer of Git LFS, not the file itself; get it with git lfs pull")
    file.unlink()
    assert "there is no model.safetensors" in refusal(folder)


@pytest.mark.parametrize(
    "shape", ["[1" + "0" * 400 + "]", "[-3, -4]", "[3.0]", '"ab"', "[true]", "[65536, 65536]", "[" * 100_000]
)
def test_sizes_that_no_file_can_have(folder: Path, shape: str) -> None:
    header = f'{{"a": {{"dtype": "F32", "shape": {shape}, "data_offsets": [0, 48]}}}}'.encode()
    file = folder / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(48))
    assert refusal(folder).endswith("is no whole safetensors file")


def test_devices() -> None:
    assert free_bytes(open_device("perception.tracker", "cpu")) > 0
    for name, precision, why in (
        ("gpu", "float32", r"tracker\.device 'gpu': unknown"),
        ("meta", "float32", r"tracker\.device 'meta': not supported"),
        ("cuda:9", "float32", r"tracker\.device 'cuda:9': torch sees \d CUDA devices"),
        ("cpu", "float16", r"tracker\.precision 'float16' is too slow"),
    ):
        with pytest.raises(ValueError, match=why):
            open_device("tracker", name, precision)


def test_packages_that_are_not_there() -> None:
    class Wanting(ColorTrackerConfig):
        packages = ("no_such_package",)
        extra = "perception"

    with pytest.raises(
        PerceptionError, match=r"tracker type 'color' needs no_such_package: pip install 'dexrun"
    ):
        Wanting().check_packages()
