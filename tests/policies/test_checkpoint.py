"""Weight files: what is read, what is refused, and that nothing in them runs."""

from __future__ import annotations

import collections
import io
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dexrun.data.convert import convert
from policies.act.config import ActConfig
from policies.act.load import load_act
from policies.act.options import ActShape
from policies.checkpoint import (
    CheckpointError,
    Skipped,
    check_fit,
    read_pickle,
    read_safetensors,
    read_state,
    read_torch,
    write_safetensors,
)
from policies.dexgrasp.load import load_backbone, load_controller, random_controller
from policies.dexgrasp.options import ControllerShape
from policies.said_units import units_beside

DATA = Path(__file__).parent / "data"
TINY = ControllerShape(
    head="tiny14",
    wrist="tiny14",
    image_size=28,
    position_grid=2,
    state_size=6,
    action_size=6,
    horizon=8,
    layers=1,
    heads=2,
    mask_layers=1,
    mask_heads=2,
)  # fmt: skip


class Evil:
    """Leaves a mark if a reader runs it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.mark)!r}, 'w').close()",))


def test_tensors_of_every_kind_come_back(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    state = collections.OrderedDict(
        a=base[2:8].view(2, 3).t(), b=base[:3], half=torch.ones(2, dtype=torch.bfloat16),
        flag=torch.tensor([True, False]), empty=torch.empty(0), scalar=torch.tensor(4),
        parameter=torch.nn.Parameter(torch.ones(2)),
    )  # fmt: skip
    torch.save(state, tmp_path / "x.pt")
    read = read_torch(tmp_path / "x.pt")
    assert list(read) == list(state)
    for key, value in state.items():
        assert torch.equal(read[key], value), key
        assert read[key].dtype == value.dtype


def test_module_state_dicts_are_read_as_they_are(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    torch.save(net.state_dict(), tmp_path / "x.pth")
    read = read_state(tmp_path / "x.pth")
    check_fit("x", read, net.state_dict())
    assert all(torch.equal(read[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_plain_pickles_of_arrays(tmp_path: Path, protocol: int) -> None:
    stats = {
        "m": np.arange(3, dtype=np.float32), "f": np.asfortranarray(np.ones((2, 3))),
        "s": np.float64(2.5), "n": 3, "l": [np.array([True])], "b": np.arange(2, dtype=">i4"),
    }  # fmt: skip
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(stats, protocol=protocol))
    read = read_pickle(tmp_path / "x.pkl")
    for key in ("m", "f", "b"):
        np.testing.assert_array_equal(read[key], stats[key])
    assert (read["s"], read["n"], read["l"][0].tolist()) == (2.5, 3, [True])


def test_nothing_that_a_file_asks_for_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"qpos_mean": Evil(mark)}))
    torch.save({"state_dicts": {"model": {"w": torch.ones(1)}}, "x": Evil(mark)}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"x\.pkl: not read: it refers to builtins\.exec"):
        read_pickle(tmp_path / "x.pkl")
    with pytest.raises(CheckpointError, match=r"x\.ckpt: not read: it refers to builtins\.exec"):
        read_state(tmp_path / "x.ckpt")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"), ("posix", "system"), ("subprocess", "Popen"), ("builtins", "eval"),
        ("builtins", "getattr"), ("torch", "load"), ("torch.hub", "load"), ("numpy", "fromfile"),
        ("torch.storage", "_load_from_bytes"), ("operator", "attrgetter"), ("importlib", "import_module"),
        ("policies.checkpoint", "read_state"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("lenient", [False, True])
def test_names_outside_the_list_end_the_reading(
    tmp_path: Path, module: str, name: str, lenient: bool
) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", f"c{module}\n{name}\n.".encode())
    with pytest.raises(CheckpointError, match=rf"refers to {module}\.{name}, which weights have no use for"):
        read_torch(path, lenient=lenient)


def _workspace(monkeypatch: pytest.MonkeyPatch, path: Path, state: dict[str, torch.Tensor]) -> None:
    """A checkpoint as the public training workspace writes it: configuration, state dicts, dill strings."""
    module = types.ModuleType("omegaconf.dictconfig")

    class DictConfig(dict):  # type: ignore[type-arg]
        def __reduce__(self) -> Any:
            return (DictConfig, ({"a": 1},), {"_metadata": object}, iter(()), iter([("k", "v")]))

    DictConfig.__module__, DictConfig.__qualname__ = "omegaconf.dictconfig", "DictConfig"
    module.DictConfig = DictConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", module)
    optimizer = {"state": {0: {"exp_avg": torch.ones(1)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    payload = {
        "cfg": DictConfig(),
        "state_dicts": {"model": state, "optimizer": optimizer},
        "pickles": {"epoch": pickle.dumps(Evil(path.with_name("ran"))), "_output_dir": b"\x80\x04."},
    }
    torch.save(payload, path)
    monkeypatch.undo()


def test_a_workspace_checkpoint_gives_its_model_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = random_controller(TINY, 0)
    _workspace(monkeypatch, tmp_path / "epoch=1.ckpt", controller.state_dict())
    said = convert(tmp_path / "epoch=1.ckpt", tmp_path / "out.safetensors")
    assert "dexgrasp" in said
    for name in ("epoch=1.ckpt", "out.safetensors"):
        loaded = load_controller(tmp_path / name, ControllerShape(mask_heads=2))
        assert loaded.shape == TINY
        for key, value in controller.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), key
    assert not (tmp_path / "ran").exists()
    assert "omegaconf" not in sys.modules


def test_act_converts_with_its_statistics(tmp_path: Path) -> None:
    for name in ("policy_best.ckpt", "dataset_stats.pkl"):
        (tmp_path / name).write_bytes((DATA / f"act_{name}").read_bytes())
    convert(tmp_path / "policy_best.ckpt", tmp_path / "act.safetensors")
    (tmp_path / "dataset_stats.pkl").unlink()
    model, stats = load_act(ActConfig(checkpoint=str(tmp_path / "act.safetensors"), shape=ActShape(heads=4)))
    original = ActConfig(
        checkpoint=str(DATA / "act_policy_best.ckpt"), stats=str(DATA / "act_dataset_stats.pkl")
    )
    theirs, their_stats = load_act(original)
    np.testing.assert_array_equal(stats.qpos_std, their_stats.qpos_std)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), theirs.parameters(), strict=True))


def test_a_converted_checkpoint_says_its_units_in_another_folder_too(tmp_path: Path) -> None:
    for name in ("policy_best.ckpt", "dataset_stats.pkl"):
        (tmp_path / name).write_bytes((DATA / f"act_{name}").read_bytes())
    (tmp_path / "dexrun.json").write_text('{"units": "lerobot_degrees"}')
    source, target = tmp_path / "policy_best.ckpt", tmp_path / "elsewhere" / "act.safetensors"
    target.parent.mkdir()
    for _ in range(2):
        convert(source, target)
        said = units_beside(target)
        assert said is not None
        assert said.convention == "lerobot_degrees"
    (target.parent / "dexrun.json").write_text('{"units": "rad"}')
    with pytest.raises(CheckpointError, match="says other units than"):
        convert(source, target)


def test_a_dinov2_file_loads_into_a_backbone(tmp_path: Path) -> None:
    source, target = random_controller(TINY, 1), random_controller(TINY, 2)
    torch.save(source.obs_encoder.dino_head.state_dict(), tmp_path / "dinov2.pth")
    load_backbone(target, "wrist", tmp_path / "dinov2.pth")
    assert torch.equal(target.obs_encoder.dino_wrist.cls_token, source.obs_encoder.dino_head.cls_token)
    assert "dinov2" in convert(tmp_path / "dinov2.pth", tmp_path / "dinov2.safetensors")


def _lacking(state: dict[str, torch.Tensor]) -> None:
    del state["model.head.bias"]


def _extra(state: dict[str, torch.Tensor]) -> None:
    state["model.extra"] = torch.ones(1)


def _reshaped(state: dict[str, torch.Tensor]) -> None:
    state["model.head.weight"] = torch.ones(3, 3)


def _without_normalizer(state: dict[str, torch.Tensor]) -> None:
    for key in [key for key in state if key.startswith("normalizer")]:
        del state[key]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_lacking, r"does not fit: missing model\.head\.bias"),
        (_extra, r"unexpected model\.extra"),
        (_reshaped, r"model\.head\.weight is \[3, 3\], the network has \[6, 32\]"),
        (_without_normalizer, "no normaliser for 6 actions"),
        (lambda state: state.pop("model.cond_pos_emb"), "not a DexGraspVLA controller: no 'model.cond_pos"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: Any, says: str) -> None:
    state = dict(random_controller(TINY, 0).state_dict())
    change(state)
    write_safetensors(tmp_path / "x.safetensors", state, {})
    with pytest.raises(CheckpointError, match=says) as caught:
        load_controller(tmp_path / "x.safetensors", TINY)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_weights_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("<html>404</html>")
    (tmp_path / "text.safetensors").write_text("<html>404</html>")
    for name in ("lfs.ckpt", "lfs.safetensors"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("x/readme", "hello")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    torch.save([1], tmp_path / "list.pt")
    for name, says in (
        ("text.ckpt", "not a zip file of torch.save"),
        ("text.safetensors", "damaged or not a weight file"),
        ("lfs.ckpt", "a pointer of Git LFS, not the file itself; get it with git lfs pull"),
        ("lfs.safetensors", "a pointer of Git LFS"),
        ("zip.pt", "without data.pkl"),
        ("none.pt", r"no tensors in it \(there is: epoch\)"),
        ("list.pt", "holds a list, not a table"),
        ("absent.ckpt", "no such file"),
        ("absent.safetensors", "no such file"),
        ("", "a folder; give a .safetensors"),
    ):
        with pytest.raises(CheckpointError, match=says) as caught:
            read_state(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=r"must end in \.safetensors"):
        convert(tmp_path / "x.ckpt", tmp_path / "x.bin")


def test_a_tensor_may_not_reach_beyond_its_storage(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4)}, tmp_path / "x.pt")
    path = tmp_path / "small.pt"
    with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data[:8] if name.endswith("data/0") else data)
    with pytest.raises(CheckpointError, match="storage 0 is shorter"):
        read_torch(path)


def test_objects_in_arrays_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": np.array([{}, None], dtype=object)}))
    with pytest.raises(CheckpointError, match="a dtype that is not a boolean's, an integer's or a float's"):
        read_pickle(tmp_path / "x.pkl")


def _saved() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(6.0).view(2, 3), "b": [torch.ones(1)]}, buffer)
    return buffer.getvalue()


SAVED = _saved()


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.integers(0, len(SAVED) - 1), st.integers(0, 255), st.booleans())
def test_damage_anywhere_ends_in_weights_or_one_line(
    tmp_path: Path, place: int, byte: int, cut: bool
) -> None:
    data = bytearray(SAVED)
    data[place] = byte
    (tmp_path / "x.pt").write_bytes(data[:place] if cut else data)
    try:
        read_torch(tmp_path / "x.pt")
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017 - both ends are fine


def test_skipped_objects_take_anything_and_do_nothing() -> None:
    made = Skipped(1, x=2)
    made.append(1)
    made.extend([1])
    made.add(1)
    made["a"] = 1
    made.__setstate__({"a": 1})
    assert made(1) is made
    assert not hasattr(made, "a")


def test_safetensors_keep_metadata(tmp_path: Path) -> None:
    shared = torch.ones(4)
    write_safetensors(tmp_path / "x.safetensors", {"a": shared, "b": shared[:2]}, {"kind": "test"})
    state, metadata = read_safetensors(tmp_path / "x.safetensors")
    assert state["b"].tolist() == [1.0, 1.0]
    assert metadata["kind"] == "test"
