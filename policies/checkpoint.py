"""Reads weight files without running what is in them.

A ``.ckpt``, ``.pt``, ``.pth`` or ``.pkl`` file is a pickle, and a pickle is a program. Here it is
interpreted with a fixed list of names: what they are called with is noted, and tensors and arrays are then
rebuilt by the functions that rebuild those in messages (`policies.pickles`). Names known to be harmless
baggage of a training workspace (its configuration, optimiser, dill's wrappers) become inert `Skipped`
objects; any other name ends the reading. Nothing is imported because a file says so.
"""

from __future__ import annotations

import collections
import pickle  # the opcodes only; every name goes through `_Reader.find_class`
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.encoding.limits import Limits, WireError
from policies.pickles.arrays import NUMPY, STORAGES, check_reach
from policies.pickles.machine import Call, Name, Named
from policies.pickles.reader import LEAVES, Builder, build
from policies.pickles.scan import check_program
from runtime.input_file import POINTER, is_pointer
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

DTYPES = {**STORAGES, "BFloat16Storage": "bfloat16"}
"""Torch's dtypes by the class of a storage in a file."""

CONTAINERS: dict[str, Any] = {
    "collections.OrderedDict": collections.OrderedDict,
    "torch.Size": tuple,
    "builtins.set": set,
    "builtins.dict": dict,
    "builtins.list": list,
    "builtins.tuple": tuple,
}
"""What is made at once, for the pickle goes on to fill it."""

INERT_ALWAYS = ("torch.device", "collections.defaultdict")


def _tensor(args: tuple[Any, ...], state: Any) -> Any:
    """``torch._utils._rebuild_tensor_v2`` over a storage of this file."""
    import torch

    if len(args) < 4 or not isinstance(args[0], torch.Tensor):
        raise WireError("a tensor without a storage")
    storage, offset, size, stride = args[:4]
    check_reach(offset, size, stride, storage.numel())
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _parameter(args: tuple[Any, ...], state: Any) -> Any:
    return args[0] if args else None


def _encode(args: tuple[Any, ...], state: Any) -> bytes:
    """``_codecs.encode`` as old protocols use it for bytes."""
    if not args or not isinstance(args[0], str) or args[1:] not in ((), ("latin1",), ("latin-1",)):
        raise WireError("bytes that are not text in latin1")
    return args[0].encode("latin1")


BUILDERS: dict[Name, Builder] = {
    **NUMPY,
    ("_codecs", "encode"): _encode,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
LIMITS = Limits(size_bytes=1 << 62, depth=100, items=1 << 24)
"""A file is as large as it is; what refers to what is bounded as in a message."""
PROGRAM_BYTES = 256 << 20
"""Of the pickle itself: tensors lie beside it. A file of numpy arrays has them within."""
UNFOLDED = 1 << 20
"""Values, each as often as it is referred to: ten times the same list is ten lists."""
SPARE_BYTES = 64 << 20


class _Noted(Call):
    """A call that was noted; takes the state that the pickle gives its result."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Function(Named):
    """A name on the list: calling it is noted."""

    def __call__(self, *args: Any) -> _Noted:
        return _Noted(self.name, args)


def _leaves() -> frozenset[type]:
    import sys

    torch = sys.modules.get("torch")  # a file without storages needs none
    tensor = {torch.Tensor} if torch is not None else set()
    return LEAVES | {bytes, bytearray, complex, set, frozenset, Skipped, type, _Function} | tensor


class _Reader(pickle.Unpickler):
    """A pickle interpreter that knows only the names above, and notes what they are called with."""

    def __init__(self, file: Any, storage: Callable[[str, str, int], Any] | None, lenient: bool) -> None:
        super().__init__(file)
        self._file = file
        self._storage = storage
        self._lenient = lenient

    def built(self) -> Any:
        """The pickled value."""
        data = self._file.read(PROGRAM_BYTES + 1)
        if len(data) > PROGRAM_BYTES:
            raise WireError(f"a pickle of more than {PROGRAM_BYTES >> 20} MiB", "too_large")
        check_program(data, LIMITS)
        self._file.seek(0)
        return build(self.load(), BUILDERS, LIMITS, _leaves())

    def find_class(self, module: str, name: str) -> Any:
        module = PYTHON_2.get(module, module)
        full = f"{module}.{name}"
        if (module, name) in BUILDERS:
            return _Function((module, name))
        if full in CONTAINERS:
            return CONTAINERS[full]
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if full in INERT_ALWAYS or (self._lenient and (full.startswith(BAGGAGE) or full in INERT)):
            return Skipped
        raise pickle.UnpicklingError(f"it refers to {full}, which weights have no use for")

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, count = pid
        if kind != "storage" or self._storage is None or not isinstance(dtype, str):
            raise pickle.UnpicklingError("an unknown kind of persistent object")
        return self._storage(dtype, str(key), int(count))


class _Owner:
    """Makes what was read one's own: arrays as copies that may be written to, and lists for tuples.

    What a file refers to often is counted as often: whoever goes through the result does it as often.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._values = UNFOLDED
        self._bytes = limit_bytes

    def own(self, value: Any) -> Any:
        self._values -= 1
        if self._values < 0:
            raise WireError(
                f"more than {UNFOLDED} values, counted as often as they are referred to", "too_large"
            )
        if isinstance(value, np.ndarray):
            self._count(value.nbytes)
            return value.copy(order="K")
        if isinstance(value, dict):
            return {key: self.own(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.own(item) for item in value]
        if hasattr(value, "untyped_storage"):  # a tensor, without importing torch for it
            self._count(value.numel() * value.element_size())
        return value

    def _count(self, size: int) -> None:
        self._bytes -= size
        if self._bytes < 0:
            raise WireError("its tensors are many times larger than the file", "too_large")


def _run(path: Path, read: Callable[[], Any]) -> Any:
    try:
        if is_pointer(path):
            raise CheckpointError(f"{path}: {POINTER}")
        return _Owner(8 * path.stat().st_size + SPARE_BYTES).own(read())
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (pickle.UnpicklingError, WireError) as error:
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
            return _Reader(file, None, lenient=False).built()

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
        if path.is_file() and not zipfile.is_zipfile(path):
            raise CheckpointError(
                f"{path}: not a zip file of torch.save (it may be damaged, or in torch's format before 1.6: "
                "load and save it once with a current torch)"
            )
        with zipfile.ZipFile(path) as archive:
            name = next((n for n in archive.namelist() if n.endswith("/data.pkl")), None)
            if name is None:
                raise CheckpointError(f"{path}: a zip file without data.pkl; expected what torch.save writes")
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise CheckpointError(f"{path}: a compressed zip file; torch.save never compresses")
            root = name.removesuffix("data.pkl")
            held: dict[str, Tensor] = {}
            left = path.stat().st_size

            def storage(dtype: str, key: str, count: int) -> Tensor:
                nonlocal left
                if key not in held:
                    left -= archive.getinfo(f"{root}data/{key}").file_size
                    if left < 0:
                        raise CheckpointError(f"{path}: damaged: its parts are larger than the file")
                    data = bytearray(archive.read(f"{root}data/{key}"))
                    kind = getattr(torch, dtype)
                    held[key] = torch.frombuffer(data, dtype=kind) if data else torch.empty(0, dtype=kind)
                if held[key].numel() < count:
                    raise CheckpointError(f"{path}: storage {key} is shorter than it says")
                return held[key]

            with archive.open(name) as file:
                return _Reader(file, storage, lenient).built()

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


COMPILED, PARALLEL = "_orig_mod.", "module."
"""What `torch.compile` puts before a network's names, and ``DataParallel`` before all of them."""


def _unwrapped(path: Path, state: State) -> State:
    """The names as the network itself has them."""
    names = [name.replace(COMPILED, "") for name in state]
    while names and all(name.startswith(PARALLEL) for name in names):
        names = [name.removeprefix(PARALLEL).replace(COMPILED, "") for name in names]
    if len(set(names)) != len(names):
        raise CheckpointError(
            f"{path}: names with and without {COMPILED!r} or {PARALLEL!r} for the same tensors"
        )
    return dict(zip(names, state.values(), strict=True))


def _tensors_of(path: Path, value: Any) -> State:
    import torch

    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path}: holds a {type(value).__name__}, not a table of tensors")
    state = {str(k): v for k, v in value.items() if isinstance(v, torch.Tensor)}
    state = _unwrapped(path, state)
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
        raise CheckpointError(
            f"{path}: a folder; give a .safetensors, .ckpt, .pt or .pth file, or a folder of dexrun train, "
            "which has a policy.json"
        )
    if path.suffix == ".safetensors":
        return _unwrapped(path, read_safetensors(path)[0])
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
