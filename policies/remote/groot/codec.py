"""GR00T's messages (N1.5 to N1.7): msgpack, arrays as ``.npy``, modality configurations as JSON values.

Source: ``gr00t/policy/server_client.py`` of NVIDIA/Isaac-GR00T. Bodies written by ``torch.save`` (older
generations) are refused: they are pickles.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from policies.encoding import npy
from policies.encoding.limits import DEFAULT_LIMITS, Limits, WireError
from policies.encoding.msgpack_views import Bin, Piece, pack, unpack

ARRAY = "__ndarray_class__"
MODALITY = "__ModalityConfig_class__"
CAPABILITIES = "dexrun_capabilities"
"""An endpoint of our own server; the reference server answers that it does not know it."""


@dataclass(frozen=True, slots=True)
class ModalityConfig:
    """Which keys a modality has, and at which steps around the present one they are sampled."""

    delta_indices: list[int]
    modality_keys: list[str]
    sin_cos_embedding_keys: list[str] | None = None
    mean_std_embedding_keys: list[str] | None = None
    action_configs: list[Any] | None = None


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        npy.check_dtype(value.dtype)
        head = npy.header(value.dtype, value.shape)
        return {ARRAY: True, "as_npy": Bin((head, npy.flat(value)))}
    if isinstance(value, ModalityConfig):
        return {MODALITY: True, "as_json": asdict(value)}
    if isinstance(value, np.generic):
        return value.item()
    raise WireError(f"a {type(value).__name__} cannot be sent", "type")


def _modality(value: Any) -> ModalityConfig:
    if isinstance(value, str):  # the generation before wrote text
        try:
            value = json.loads(value)
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
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _decode(value: dict[Any, Any]) -> Any:
    if MODALITY in value:
        return _modality(value.get("as_json"))
    if ARRAY in value:
        data = value.get("as_npy")
        if not isinstance(data, memoryview):
            raise WireError("an array without as_npy bytes")
        return npy.load(data)
    return value


def encode(value: Any) -> list[Piece]:
    """`value` (arrays, `ModalityConfig` and plain values) as pieces of one message."""
    return pack(value, _encode)


def decode(message: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The value of `message`; arrays are views into it.

    Raises:
        WireError: it is not one, or is over a limit.
    """
    return unpack(message, limits, _decode)


def request(endpoint: str, data: dict[str, Any] | None = None, token: str = "") -> list[Piece]:
    """A client's message. `data` is left out where the endpoint takes none."""
    body: dict[str, Any] = {"endpoint": endpoint}
    if data is not None:
        body["data"] = data
    if token:
        body["api_token"] = token
    return encode(body)


def reply(message: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The value of a server's message.

    Raises:
        WireError: kind ``refused`` if it is an error, ``malformed`` if it is not a message.
    """
    if len(message) == 5 and bytes(message) == b"ERROR":
        raise WireError("the server answered ERROR; is it the right policy server?", "refused")
    value = decode(message, limits)
    if isinstance(value, dict) and "error" in value:
        raise WireError(f"the server answered: {str(value['error'])[:300]}", "refused")
    return value
