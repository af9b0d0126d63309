"""GR00T's messages (N1.5 to N1.7): msgpack, arrays in either of two forms, modalities as JSON values.

N1.5, N1.6 and the first N1.7 write an array as ``.npy``; later ones as the package msgpack_numpy does.
NVIDIA's newest code reads both and writes the latter, the code before it reads only the form that it writes:
so whoever answers, answers in the form that was asked in (`ArrayForm`).

Source: ``gr00t/policy/server_client.py`` of NVIDIA/Isaac-GR00T, and msgpack_numpy 0.4.8. Bodies written by
``torch.save`` (older generations) are refused: they are pickles.
"""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from policies.encoding import npy
from policies.encoding.limits import DEFAULT_LIMITS, Limits, WireError
from policies.encoding.msgpack_views import Bin, Piece, pack, unpack

NPY_ARRAY = "__ndarray_class__"
NPY_MODALITY = "__ModalityConfig_class__"
PACKED_ARRAY = b"nd"
PACKED_MODALITY = "__ModalityConfig__"
OURS = "dexrun"
"""In the answer to ``ping``, where no peer looks: what our own server can do beyond GR00T's."""


class ArrayForm(enum.Enum):
    """How a peer writes arrays and modality configurations."""

    NPY = ".npy"
    MSGPACK_NUMPY = "msgpack_numpy"


@dataclass(frozen=True, slots=True)
class ModalityConfig:
    """Which keys a modality has, and at which steps around the present one they are sampled."""

    delta_indices: list[int]
    modality_keys: list[str]
    sin_cos_embedding_keys: list[str] | None = None
    mean_std_embedding_keys: list[str] | None = None
    action_configs: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A message's value, and the form of what in it has one."""

    value: Any
    wire: ArrayForm | None


def _encode(wire: ArrayForm | None, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        npy.check_dtype(value.dtype)
        if wire is ArrayForm.MSGPACK_NUMPY:
            data = Bin((npy.flat(value),))
            return {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": value.shape, b"data": data}
        head = npy.header(value.dtype, value.shape)
        return {NPY_ARRAY: True, "as_npy": Bin((head, npy.flat(value)))}
    if isinstance(value, ModalityConfig):
        markers = {ArrayForm.NPY: (NPY_MODALITY,), ArrayForm.MSGPACK_NUMPY: (PACKED_MODALITY,)}
        both = (NPY_MODALITY, PACKED_MODALITY)  # a reader of either finds its own
        names = both if wire is None else markers[wire]
        return {**dict.fromkeys(names, True), "as_json": asdict(value)}
    if isinstance(value, np.generic):
        return value.item()
    raise WireError(f"a {type(value).__name__} cannot be sent", "type")


def modality(value: Any) -> ModalityConfig:
    """The configuration that `value` describes, as text or as a map.

    Raises:
        WireError: it describes none.
    """
    if isinstance(value, str | memoryview):  # the first generation wrote text
        try:
            value = json.loads(bytes(value) if isinstance(value, memoryview) else value)
        except (ValueError, RecursionError):
            raise WireError("a modality configuration is not JSON") from None
    if not isinstance(value, dict):
        raise WireError("a modality configuration is not an object")
    indices, keys = value.get("delta_indices"), value.get("modality_keys")
    if not _all(indices, int) or not _all(keys, str):
        raise WireError("a modality configuration needs delta_indices [int] and modality_keys [str]")
    known = {k: v for k, v in value.items() if k in ModalityConfig.__dataclass_fields__}
    return ModalityConfig(**known)


def _all(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _scalar(name: Any, data: memoryview) -> Any:
    dtype = npy.short_dtype(name)
    if data.nbytes != dtype.itemsize:
        raise WireError(f"a scalar of dtype {dtype} in {data.nbytes} bytes", "shape")
    return np.frombuffer(data, dtype)[0]


def _packed(value: dict[Any, Any]) -> Any:
    """An array or a number as msgpack_numpy writes it; a structure or an object is a pickle's danger."""
    data, shape = value.get(b"data"), value.get(b"shape")
    if not isinstance(data, memoryview):
        raise WireError("an array without data")
    if value.get(b"nd") is False:
        return _scalar(value.get(b"type"), data)
    if value.get(b"kind", b"") not in (b"", ""):
        raise WireError(
            "an array of objects or structures; booleans, integers and floats are taken", "forbidden"
        )
    if not isinstance(shape, list) or not _all(shape, int):
        raise WireError("an array's shape is not integers", "shape")
    return npy.view(data, npy.short_dtype(value.get(b"type")), tuple(shape))


class _Reader:
    """Decodes maps, and notes in which form they are."""

    def __init__(self) -> None:
        self.wire: ArrayForm | None = None

    def decode(self, value: dict[Any, Any]) -> Any:
        if PACKED_ARRAY in value:
            self.wire = ArrayForm.MSGPACK_NUMPY
            return _packed(value)
        if NPY_ARRAY in value:
            self.wire = ArrayForm.NPY
            data = value.get("as_npy")
            if not isinstance(data, memoryview):
                raise WireError("an array without as_npy bytes")
            return npy.load(data)
        if PACKED_MODALITY in value or NPY_MODALITY in value:
            self.wire = ArrayForm.MSGPACK_NUMPY if PACKED_MODALITY in value else ArrayForm.NPY
            return modality(value.get("as_json"))
        return value


def encode(value: Any, wire: ArrayForm | None = None) -> list[Piece]:
    """`value` (arrays, `ModalityConfig` and plain values) as pieces of one message.

    A peer whose form is not known yet gets arrays as ``.npy``, which all but a few months' code reads.
    """
    return pack(value, partial(_encode, wire))


def read(message: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> Decoded:
    """The value of `message`, and the form of its arrays and configurations; arrays are views into it.

    Raises:
        WireError: it is not one, or is over a limit.
    """
    reader = _Reader()
    return Decoded(unpack(message, limits, reader.decode), reader.wire)


def decode(message: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The value alone; see `read`."""
    return read(message, limits).value


def request(
    endpoint: str, data: dict[str, Any] | None = None, token: str = "", wire: ArrayForm | None = None
) -> list[Piece]:
    """A client's message. `data` is left out where the endpoint takes none."""
    body: dict[str, Any] = {"endpoint": endpoint}
    if data is not None:
        body["data"] = data
    if token:
        body["api_token"] = token
    return encode(body, wire)


def reply(message: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> Decoded:
    """A server's message.

    Raises:
        WireError: kind ``refused`` if it is an error, ``malformed`` if it is not a message.
    """
    if len(message) == 5 and bytes(message) == b"ERROR":
        raise WireError("the server answered ERROR; is it the right policy server?", "refused")
    found = read(message, limits)
    if isinstance(found.value, dict) and "error" in found.value:
        raise WireError(f"the server answered: {str(found.value['error'])[:300]}", "refused")
    return found
