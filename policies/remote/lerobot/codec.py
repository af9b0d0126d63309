"""LeRobot's bodies: pickles of three of its classes, written and read without LeRobot and without torch.

Sources: ``lerobot/async_inference/helpers.py`` and ``robot_client.py`` of huggingface/lerobot 0.4.4.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policies.encoding.limits import DEFAULT_LIMITS, Limits, WireError
from policies.encoding.msgpack_views import Piece
from policies.pickles.arrays import NUMPY, TORCH, storage_bytes
from policies.pickles.machine import Name
from policies.pickles.reader import Builder, Builders, load
from policies.pickles.writer import Raw, Writer
from runtime.messages import Floats

HELPERS = "lerobot.async_inference.helpers"
MAX_ACTION = 1024
"""Numbers in one step: each is copied, and a pickle may name one large tensor in thousands of steps."""
IMAGES = "observation.images."
MODULES = (HELPERS, "lerobot.scripts.server.helpers")
"""From version 0.4 on, and before."""


@dataclass(frozen=True, slots=True)
class TimedObservation:
    """What the robot sees: floats by joint, images, and the task's text.

    `module` is where its class was named, which is where the client has the class of the answer, too.
    """

    timestamp: float
    timestep: int
    observation: Mapping[str, Any]
    must_go: bool = False
    module: str = HELPERS


@dataclass(frozen=True, slots=True)
class TimedAction:
    """One step of a chunk, ``[A]``."""

    timestamp: float
    timestep: int
    action: Floats


@dataclass(frozen=True, slots=True)
class PolicySetup:
    """What a client asks the server to load."""

    policy_type: str
    pretrained_name_or_path: str
    lerobot_features: Mapping[str, Any]
    actions_per_chunk: int
    device: str = "cpu"
    rename_map: Mapping[str, str] = field(default_factory=dict)


class _Object(Raw):
    """An instance of a data class of LeRobot's."""

    def __init__(self, module: str, name: str, state: Mapping[str, Any]) -> None:
        self._module, self._name, self._state = module, name, state

    def write(self, writer: Writer) -> None:
        writer.name(self._module, self._name)
        writer.emit(b")\x81")
        writer.memoize()
        writer.value(dict(self._state))
        writer.emit(b"b")


_U4 = struct.Struct("<i")
_F8 = struct.Struct(">d")


class _Chunk(Raw):
    """A float32 matrix as a list of ``TimedAction``, each row a tensor that is a view of one storage.

    A tensor pickled by itself carries its whole storage along, so that 50 rows of 24 bytes make 76 kB.
    What all rows have in common is written once here, and referred to.
    """

    def __init__(self, rows: Any, timestamp: float, timestep: int, step_s: float, module: str) -> None:
        self._rows, self._module = rows, module
        self._timestamp, self._timestep, self._step_s = timestamp, timestep, step_s

    def write(self, writer: Writer) -> None:
        width = self._rows.shape[1]
        writer.emit(b"](")
        for index in range(len(self._rows)):
            if index < 2:  # the first introduces, the second shows how to refer
                before, between, after = self._parts(writer, width)
            stamp = _F8.pack(self._timestamp + index * self._step_s)
            step = _U4.pack(self._timestep + index)
            offset = _U4.pack(index * width)
            writer.emit(before + b"G" + stamp + between[0] + b"J" + step + between[1] + b"J" + offset + after)
        writer.emit(b"e")

    def _parts(self, writer: Writer, width: int) -> tuple[bytes, tuple[bytes, bytes], bytes]:
        """The bytes before the time stamp, around the step, and after the offset."""

        def part(*calls: Callable[[], Any]) -> bytes:
            start = writer.position()
            for call in calls:
                call()
            return writer.cut(start)

        def storage() -> None:
            if not writer.again("storage"):
                writer.name("torch.storage", "_load_from_bytes")
                writer.data(storage_bytes(self._rows.reshape(-1)), inline=True)
                writer.emit(b"\x85R")
                writer.memoize("storage")

        def once(key: str, code: bytes) -> None:
            if not writer.again(key):
                writer.emit(code)
                writer.memoize(key)

        def hooks() -> None:
            if not writer.again("hooks"):
                writer.name("collections", "OrderedDict")
                writer.emit(b")R")
                writer.memoize("hooks")

        before = part(
            lambda: writer.name(self._module, "TimedAction"),
            lambda: writer.emit(b")\x81}("),
            lambda: writer.text("timestamp"),
        )
        middle = part(lambda: writer.text("timestep"))
        tensor = part(
            lambda: writer.text("action"),
            lambda: writer.name("torch._utils", "_rebuild_tensor_v2"),
            lambda: writer.emit(b"("),
            storage,
        )
        after = part(
            lambda: once("size", b"J" + _U4.pack(width) + b"\x85"),
            lambda: once("stride", b"K\x01\x85"),
            lambda: writer.emit(b"\x89"),
            hooks,
            lambda: writer.emit(b"tRub"),
        )
        return before, (middle, tensor), after


def _state(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _dumps(value: Any) -> list[Piece]:
    writer = Writer()
    writer.value(value)
    return writer.finish()


def encode_observation(value: TimedObservation, module: str = HELPERS) -> list[Piece]:
    """The body of ``SendObservations``."""
    state = {**_state(value), "observation": dict(value.observation)}
    del state["module"]
    return _dumps(_Object(module, "TimedObservation", state))


def encode_setup(value: PolicySetup, module: str = HELPERS) -> list[Piece]:
    """The body of ``SendPolicyInstructions``."""
    state = {**_state(value), "lerobot_features": dict(value.lerobot_features)}
    state["rename_map"] = dict(value.rename_map)
    if module != HELPERS:
        del state["rename_map"]  # 0.3 did not have it
    return _dumps(_Object(module, "RemotePolicyConfig", state))


def encode_actions(
    rows: Floats, timestamp: float, timestep: int, step_s: float, module: str = HELPERS
) -> list[Piece]:
    """The body of ``GetActions``: row `i` is for ``timestep + i``."""
    matrix = np.ascontiguousarray(rows, np.float32)
    if not -(1 << 31) <= timestep < (1 << 31) - len(matrix):
        raise WireError(f"time step {timestep} does not fit 32 bits", "type")
    return _dumps(_Chunk(matrix, timestamp, timestep, step_s, module))


def _fields_of(args: tuple[Any, ...], state: Any, kinds: Mapping[str, Any]) -> dict[str, Any]:
    if args or not isinstance(state, dict):
        raise WireError("an object of LeRobot's without its fields")
    for name, kind in kinds.items():
        if not isinstance(state.get(name), kind):
            have = type(state.get(name)).__name__
            raise WireError(f"field {name} of an object of LeRobot's is a {have}", "shape")
    return state


def _timed_observation(module: str, args: tuple[Any, ...], state: Any) -> TimedObservation:
    kinds = {"timestamp": float | int, "timestep": int, "observation": dict}
    found = _fields_of(args, state, kinds)
    return TimedObservation(
        float(found["timestamp"]),
        found["timestep"],
        found["observation"],
        must_go=found.get("must_go") is True,
        module=module,
    )


def _timed_action(args: tuple[Any, ...], state: Any) -> TimedAction:
    found = _fields_of(args, state, {"timestamp": float | int, "timestep": int, "action": np.ndarray})
    form = found["action"].shape
    if len(form) != 1 or form[0] > MAX_ACTION or found["action"].dtype.kind not in "fiu":
        raise WireError(f"an action of shape {list(found['action'].shape)}; [size] is wanted", "shape")
    return TimedAction(float(found["timestamp"]), found["timestep"], found["action"].astype(np.float64))


def _setup(args: tuple[Any, ...], state: Any) -> PolicySetup:
    kinds = {
        "policy_type": str,
        "pretrained_name_or_path": str,
        "lerobot_features": dict,
        "actions_per_chunk": int,
    }
    found = _fields_of(args, state, kinds)
    device = found.get("device", "cpu")
    renames = found.get("rename_map", {})
    return PolicySetup(
        found["policy_type"],
        found["pretrained_name_or_path"],
        found["lerobot_features"],
        found["actions_per_chunk"],
        device=device if isinstance(device, str) else "cpu",
        rename_map=renames if isinstance(renames, dict) else {},
    )


def renamed_cameras(renames: Mapping[str, str]) -> dict[str, str]:
    """A client's own names of cameras by those that it says the policy has, of its ``rename_map``.

    Raises:
        WireError: kind ``keys``: something else than cameras is renamed, or two to one.
    """
    odd = [f"{was!r} to {now!r}" for was, now in renames.items() if not _are_images(was, now)]
    found = {now.removeprefix(IMAGES): was.removeprefix(IMAGES) for was, now in renames.items() if not odd}
    if odd or len(found) != len(renames):
        why = f"renames {odd[0][:200]}" if odd else "gives two cameras one name"
        raise WireError(f"the client's rename_map {why}; {IMAGES}NAME to another of it is taken", "keys")
    return found


def _are_images(*names: object) -> bool:
    return all(isinstance(name, str) and name.startswith(IMAGES) for name in names)


def _feature(args: tuple[Any, ...], state: Any) -> Any:
    return state if isinstance(state, dict) else list(args)


_FEATURES: Mapping[Name, Builder] = {
    ("lerobot.configs.types", "PolicyFeature"): _feature,
    ("lerobot.configs.types", "FeatureType"): _feature,
}


def _classes(name: str, builder: Builder) -> dict[Name, Builder]:
    return {(module, name): builder for module in MODULES}


OBSERVATION: Builders = {
    **NUMPY,
    **TORCH,
    **{(m, "TimedObservation"): functools.partial(_timed_observation, m) for m in MODULES},
}
ACTIONS: Builders = {**NUMPY, **TORCH, **_classes("TimedAction", _timed_action)}
SETUP: Builders = {**_FEATURES, **_classes("RemotePolicyConfig", _setup)}


def decode_observation(body: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> TimedObservation:
    """The body of ``SendObservations``.

    Raises:
        WireError: something else, a class that is not on the list, or over a limit.
    """
    value = load(body, OBSERVATION, limits)
    if not isinstance(value, TimedObservation):
        raise WireError(f"a {type(value).__name__} where a TimedObservation is wanted")
    return value


def decode_setup(body: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> PolicySetup:
    """The body of ``SendPolicyInstructions``.

    Raises:
        WireError: as `decode_observation`.
    """
    value = load(body, SETUP, limits)
    if not isinstance(value, PolicySetup):
        raise WireError(f"a {type(value).__name__} where a RemotePolicyConfig is wanted")
    return value


def decode_actions(body: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> Sequence[TimedAction]:
    """The body of ``GetActions``: steps in order, without a gap, all of one size.

    Raises:
        WireError: as `decode_observation`.
    """
    value = load(body, ACTIONS, limits)
    if not isinstance(value, list) or not value or not all(isinstance(a, TimedAction) for a in value):
        raise WireError("the reply is not a list of TimedAction")
    first = value[0]
    for index, action in enumerate(value):
        if action.timestep != first.timestep + index or action.action.shape != first.action.shape:
            raise WireError(f"step {index} of the chunk does not follow the one before it", "shape")
    return value
