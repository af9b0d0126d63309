"""Reads weight files without running what is in them.

A ``.ckpt``, ``.pt``, ``.pth`` or ``.pkl`` file is a pickle, and a pickle is a program. Here it is
interpreted with a fixed list of functions: tensors, arrays and containers are rebuilt, by code in this file;
names known to be harmless baggage of a training workspace (its configuration, optimiser, dill's wrappers)
become inert `Skipped` objects; any other name ends the reading. Nothing is imported because a file says so.
"""

from __future__ import annotations

import collections
import pickle  # the opcodes only; every name goes through `_Reader.find_class`
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from runtime.interfaces import PolicyError

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]


class CheckpointError(PolicyError):
    """A weight file cannot be used. One line: which file, what is wrong, what would be accepted."""


class Skipped:
    """Stands for an object that was not rebuilt. Takes whatever a pickle does to it, and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        del args, kwargs

    def __new__(cls, *args: object, **kwargs: object) -> Skipped:
        del args, kwargs
        return super().__new__(cls)

    def __call__(self, *args: object, **kwargs: object) -> Skipped:
        del args, kwargs
        return self

    def __setstate__(self, state: object) -> None:
        del state

    def __setitem__(self, key: object, value: object) -> None:
        del key, value

    def append(self, item: object) -> None:
        """Ignore a list item."""
        del item

    def extend(self, items: object) -> None:
        """Ignore list items."""
        del items

    def add(self, item: object) -> None:
        """Ignore a set item."""
        del item


BAGGAGE = (
    "omegaconf.",
    "hydra.",
    "dill.",
    "antlr4.",
    "typing.",
    "pathlib.",
    "controller.",
    "diffusion_policy.",
    "diffusers.",
    "torch.optim.",
    "torch.nn.",
    "enum.",
    "argparse.Namespace",
)
"""Names, by their start, that training workspaces put into checkpoints and that weights do not need."""

INERT = frozenset(
    f"builtins.{name}" for name in ("object", "type", "int", "float", "str", "bool", "bytes", "frozenset")
) | {"copyreg._reconstructor"}
"""Built-in types that such baggage mentions, and how old protocols make objects of it."""

PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Module names that pickle protocols up to 2 write."""

DTYPES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: object) -> Any:
    """``torch._utils._rebuild_tensor_v2`` over a storage of this file; torch checks the bounds."""
    import torch

    del rest
    if not isinstance(storage, torch.Tensor):
        raise pickle.UnpicklingError("a tensor without a storage")
    if int(np.prod(size, dtype=object)) > storage.numel():
        raise pickle.UnpicklingError("a tensor larger than its storage")
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _rebuild_parameter(data: Any, *rest: object) -> Any:
    del rest
    return data


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """``_codecs.encode`` as old protocols use it for bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"text in encoding {encoding!r}")
    return text.encode("latin1")


class _Array:
    """An array under construction; `value` once its state was set."""

    value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(data, bytes) or not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array of objects")
        order: Any = "F" if fortran else "C"
        self.value = np.frombuffer(data, dtype.made()).reshape(shape, order=order).copy()


class _Dtype:
    """A numeric dtype under construction."""

    def __init__(self, code: str, *rest: object) -> None:
        del rest
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {"|": "=", "<": "<", ">": ">"}.get(state[1], "=")

    def made(self) -> np.dtype[Any]:
        """The dtype; only numbers and booleans."""
        dtype = np.dtype(self.code).newbyteorder(self.order)  # type: ignore[arg-type]
        if dtype.kind not in "biufc":
            raise pickle.UnpicklingError(f"an array of {dtype}")
        return dtype


def _reconstruct(*args: object) -> _Array:
    del args
    return _Array()


def _from_buffer(data: bytes, dtype: _Dtype, shape: Any, order: Any) -> Any:
    return np.frombuffer(data, dtype.made()).reshape(shape, order=order).copy()


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype.made())[0]


_NUMPY_CORES = ("numpy.core", "numpy._core")
NUMPY: dict[str, Callable[..., Any]] = {
    **{f"{core}.multiarray._reconstruct": _reconstruct for core in _NUMPY_CORES},
    **{f"{core}.multiarray.scalar": _scalar for core in _NUMPY_CORES},
    **{f"{core}.numeric._frombuffer": _from_buffer for core in _NUMPY_CORES},
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encode,
}
TORCH: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "collections.OrderedDict": collections.OrderedDict,
    "torch.Size": tuple,
    "torch.device": Skipped,
    "builtins.set": set,
    "builtins.dict": dict,
    "builtins.list": list,
    "builtins.tuple": tuple,
    "collections.defaultdict": Skipped,
}


class _Reader(pickle.Unpickler):
    """A pickle interpreter that knows only the names above."""

    KNOWN: ClassVar[Mapping[str, Callable[..., Any]]] = {**NUMPY, **TORCH}

    def __init__(self, file: Any, storage: Callable[[str, str, int], Any] | None, lenient: bool) -> None:
        super().__init__(file)
        self._storage = storage
        self._lenient = lenient

    def find_class(self, module: str, name: str) -> Any:
        full = f"{PYTHON_2.get(module, module)}.{name}"
        if full in self.KNOWN:
            return self.KNOWN[full]
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if self._lenient and (full.startswith(BAGGAGE) or full in INERT):
            return Skipped
        raise pickle.UnpicklingError(f"it refers to {full}, which weights have no use for")

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, count = pid
        if kind != "storage" or self._storage is None or not isinstance(dtype, str):
            raise pickle.UnpicklingError("an unknown kind of persistent object")
        return self._storage(dtype, str(key), int(count))


def _settled(value: Any) -> Any:
    """Arrays under construction replaced by what they became; containers only as deep as needed."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _settled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_settled(item) for item in value]
    return value


def _run(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return _settled(read())
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: not read: {error}") from error
    except Exception as error:  # any opcode of a damaged file can fail in its own way
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{path}: damaged or not a weight file: {what}") from error


def read_pickle(path: Path) -> Any:
    """Plain containers, numbers and arrays from a pickle (ACT's ``dataset_stats.pkl``).

    Raises:
        CheckpointError: it is damaged, or holds anything else; nothing was executed.
    """

    def read() -> Any:
        with path.open("rb") as file:
            return _Reader(file, None, lenient=False).load()

    return _run(path, read)


def read_torch(path: Path, *, lenient: bool = False) -> Any:
    """What `torch.save` put into a zip file, tensors on the CPU.

    Args:
        path: the file.
        lenient: replace a workspace's baggage by `Skipped` instead of refusing it.

    Raises:
        CheckpointError: it is damaged, or refers to anything that weights have no use for.
    """
    import torch

    def read() -> Any:
        with zipfile.ZipFile(path) as archive:
            name = next((n for n in archive.namelist() if n.endswith("/data.pkl")), None)
            if name is None:
                raise CheckpointError(f"{path}: a zip file without data.pkl; expected what torch.save writes")
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise CheckpointError(f"{path}: a compressed zip file; torch.save never compresses")
            root = name.removesuffix("data.pkl")
            held: dict[str, Tensor] = {}

            def storage(dtype: str, key: str, count: int) -> Tensor:
                if key not in held:
                    data = bytearray(archive.read(f"{root}data/{key}"))
                    kind = getattr(torch, dtype)
                    held[key] = torch.frombuffer(data, dtype=kind) if data else torch.empty(0, dtype=kind)
                if held[key].numel() < count:
                    raise CheckpointError(f"{path}: storage {key} is shorter than it says")
                return held[key]

            with archive.open(name) as file:
                return _Reader(file, storage, lenient).load()

    if path.is_file() and not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path}: not a zip file of torch.save (it may be damaged, or in torch's format before 1.6: load "
            "and save it once with a current torch)"
        )
    return _run(path, read)


def read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    """Tensors and metadata.

    Raises:
        CheckpointError: it is damaged.
    """

    def read() -> Any:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118

    state, metadata = _run(path, read)
    return state, metadata


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `state`; shared memory is copied apart."""
    from safetensors.torch import save_file

    apart = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    save_file(apart, path, metadata=dict(metadata))


def _tensors_of(path: Path, value: Any) -> State:
    import torch

    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path}: holds a {type(value).__name__}, not a table of tensors")
    state = {str(k): v for k, v in value.items() if isinstance(v, torch.Tensor)}
    if not state:
        raise CheckpointError(
            f"{path}: no tensors in it (there is: {', '.join(map(str, value)) or 'nothing'})"
        )
    return state


def read_state(path: Path) -> State:
    """The weights in a file of any supported kind.

    A training workspace's checkpoint (``state_dicts``) gives its EMA model if it has one, else its model;
    ``state_dict`` and ``model`` wrappers are opened.

    Raises:
        CheckpointError: as above, or there are no weights in it.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: a folder; give a .safetensors, .ckpt, .pt or .pth file")
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    value = read_torch(path, lenient=True)
    if isinstance(value, Mapping) and isinstance(value.get("state_dicts"), Mapping):
        inner = value["state_dicts"]
        value = inner.get("ema_model", inner.get("model"))
    for wrapper in ("state_dict", "model"):
        if isinstance(value, Mapping) and isinstance(value.get(wrapper), Mapping):
            value = value[wrapper]
    return _tensors_of(path, value)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def check_fit(path: str, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """That `state` has exactly the names and shapes of `wanted`.

    Raises:
        CheckpointError: naming up to three keys that are missing, unexpected or of another shape.
    """
    problems = []
    missing = sorted(k for k in wanted if k not in state)
    unexpected = sorted(k for k in state if k not in wanted)
    shapes = [
        f"{k} is {list(state[k].shape)}, the network has {list(wanted[k].shape)}"
        for k in sorted(wanted)
        if k in state and state[k].shape != wanted[k].shape
    ]
    for what, names in (("missing", missing), ("unexpected", unexpected), ("other shapes:", shapes)):
        if names:
            problems.append(f"{what} {_some(names)}")
    if problems:
        raise CheckpointError(f"{path}: does not fit: {'; '.join(problems)}")
