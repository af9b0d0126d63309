"""Weight files that would unfold into more than they are, and weights under other names."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dexrun.data.convert import convert, main
from dexrun.exit_codes import BAD_CONFIGURATION
from policies.checkpoint import CheckpointError, read_pickle, read_state, read_torch, write_safetensors

DATA = Path(__file__).parent / "data"


def torch_file(path: Path, program: bytes, **parts: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, data in parts.items():
            archive.writestr(f"archive/data/{name.removeprefix('s')}", data)
    return path


def nested(levels: int) -> Any:
    """Ten times the same list of ten times the same list..."""
    value: Any = 0
    for _ in range(levels):
        value = [value] * 10
    return value


BOMBS = {
    "shared lists": (pickle.dumps(nested(20)), "counted as often as they are referred to"),
    "shared in a table": (pickle.dumps({"model": dict.fromkeys("ab", nested(7))}), "counted as often"),
    "a large number of a value": (b"\x80\x02]r\xff\xff\xff\xff.", "kept under number 4294967295"),
    "tuples as a key": (b"\x80\x02}(" + b")" + b"\x85" * 200_000 + b"K\x01u.", "more than 100 levels"),
    "not a pickle": (b"\x80\x02}((u.", "not read: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_one_line_before_it_unfolds(tmp_path: Path, name: str) -> None:
    program, says = BOMBS[name]
    (tmp_path / "x.pkl").write_bytes(program)
    with pytest.raises(CheckpointError, match=says) as caught:
        read_torch(torch_file(tmp_path / "x.ckpt", program, s0=bytes(16)), lenient=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=says):
        read_pickle(tmp_path / "x.pkl")


def test_a_tensor_that_repeats_its_storage_without_end_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4)[:1].expand(1 << 40)}, tmp_path / "x.ckpt")
    assert (tmp_path / "x.ckpt").stat().st_size < 4096
    with pytest.raises(CheckpointError, match="reaches beyond its storage"):
        read_state(tmp_path / "x.ckpt")


def test_tensors_that_share_a_storage_are_counted_each(tmp_path: Path) -> None:
    whole = torch.zeros(1 << 20)
    torch.save({str(n): whole.view(1, -1)[:, : n - 1000] for n in range(100)}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="many times larger than the file"):
        read_state(tmp_path / "x.ckpt")


def test_long_lists_and_tables_are_no_bombs(tmp_path: Path) -> None:
    value = {"names": {str(n): n for n in range(20_000)}, "list": list(range(50_000)), "a": np.arange(3.0)}
    for protocol in (2, 4):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol))
        found = read_pickle(tmp_path / "x.pkl")
        assert found["list"] == value["list"]
        assert found["names"] == value["names"]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_are_those_of_the_network_itself(tmp_path: Path, prefix: str) -> None:
    state = {f"{prefix}model.w": torch.ones(2), f"{prefix}b": torch.zeros(1)}
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    write_safetensors(tmp_path / "x.safetensors", state, {})
    for name in ("x.ckpt", "x.safetensors"):
        assert set(read_state(tmp_path / name)) == {"model.w", "b"}


def test_one_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    torch.save({"_orig_mod.w": torch.ones(2), "w": torch.zeros(2)}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="with and without"):
        read_state(tmp_path / "x.ckpt")


LEROBOT = {
    "model.encoder_1d_feature_pos_embed.weight": torch.ones(2, 4),
    "model.action_head.bias": torch.ones(6),
}


@pytest.mark.parametrize(
    ("state", "target", "says"),
    [
        (LEROBOT, "out.safetensors", "an ACT of LeRobot's, whose network has other tensors"),
        ({"a": torch.ones(1)}, "out.safetensors", r"weights of no network that runs here \(a, ...\)"),
        ({"a": torch.ones(1)}, "none/out.safetensors", "there is no folder"),
        ({"a": torch.ones(1)}, "x.safetensors", "is what is to be converted"),
        ({"model.cond_pos_emb": torch.ones(1, 3, 4)}, "out.safetensors", "not a DexGraspVLA controller"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: Any, target: str, says: str
) -> None:
    write_safetensors(tmp_path / "x.safetensors", state, {})
    with pytest.raises(CheckpointError, match=says):
        convert(tmp_path / "x.safetensors", tmp_path / target)
    assert main([str(tmp_path / "x.safetensors"), str(tmp_path / target)]) == BAD_CONFIGURATION
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.safetensors"]
