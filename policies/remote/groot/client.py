"""The GR00T client: an observation in GR00T's nested or flat layout, a chunk back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from loguru import logger

from policies.encoding.limits import WireError
from policies.remote import jpeg
from policies.remote.client import RemotePolicy, limits_of, token_of
from policies.remote.extras import extras_of, reply_of
from policies.remote.groot import codec
from policies.remote.link import Deadline, PolicyReply, PolicyRequest
from policies.remote.options import GrootTable
from policies.remote.zmq_link import ZmqLink
from runtime.clock import Clock
from runtime.joints import JointLayout
from runtime.messages import Floats


class GrootPolicy(RemotePolicy):
    """A GR00T policy server as a `runtime.interfaces.Policy`."""

    def __init__(self, options: GrootTable, robot: JointLayout, clock: Clock) -> None:
        super().__init__("groot", options, robot, clock)
        self.use(GrootSession(options, token_of(options), self))


class GrootSession:
    """The endpoints of a GR00T server over one ZeroMQ link."""

    def __init__(self, options: GrootTable, token: str, policy: RemotePolicy) -> None:
        self._options = options
        self._token = token
        self._limits = limits_of(options)
        self._capabilities: Mapping[str, Any] = {}
        self._wire: codec.ArrayForm | None = None
        self._link = ZmqLink(
            options.host, options.port, self._limits, options.keep_alive_s, policy.waker, policy.counts
        )
        self.where = self._link.where

    def _call(self, endpoint: str, data: dict[str, Any] | None, deadline: Deadline) -> Any:
        message = codec.request(endpoint, data, self._token, self._wire)
        found = codec.reply(self._link.exchange(message, deadline), self._limits)
        self._wire = found.wire or self._wire
        return found.value

    def open(self, deadline: Deadline) -> None:
        """Connect, `ping`, and compare the configured keys with the server's."""
        self._wire = None
        self._link.open(deadline)
        status = self._call("ping", None, deadline)
        if not isinstance(status, dict) or not _is(status.get("status"), "ok"):
            raise WireError("the server's answer to ping is not GR00T's", "version")
        ours = status.get(codec.OURS)
        self._capabilities = ours if isinstance(ours, dict) else {}
        if self._options.check_modalities:
            self._check_modalities(self._call("get_modality_config", None, deadline))

    def _check_modalities(self, config: Any) -> None:
        if not isinstance(config, dict):
            raise WireError("get_modality_config did not answer with a map", "version")
        if not config:
            logger.warning("{}: the server says nothing of its keys; the first answer will tell", self.where)
        wanted = {str(name): set(_modality(str(name), value).modality_keys) for name, value in config.items()}
        keys = self._options.keys
        sent = {
            "video": {*keys.cameras.values(), *keys.depths.values(), *keys.masks.values()},
            "state": set(keys.state),
            "language": {keys.instruction} - {""},
        }
        for modality, names in sent.items():
            missing = ", ".join(sorted(wanted.get(modality, set()) - names))
            if missing:
                raise WireError(f"the server wants {modality} {missing}, which keys does not name", "keys")
        extra = ", ".join(sorted(set(keys.action) - wanted.get("action", set(keys.action))))
        if extra:
            raise WireError(f"keys.action names {extra}, which the server does not give", "keys")
        if "action" in config:
            _check_joints(_modality("action", config["action"]), keys.action)

    @property
    def takes_prefix(self) -> bool:
        """Whether the policy behind the server goes on from a prefix."""
        return bool(self._capabilities.get("prefix"))

    def ask(self, request: PolicyRequest, deadline: Deadline) -> PolicyReply:
        """One `get_action`."""
        options = extras_of(request) if self._capabilities else None
        data = {"observation": self._observation(request), "options": options}
        answer = self._get_action(data, deadline)
        actions = parse_actions(answer, self._options.flat_keys)
        return reply_of(actions, answer[1])

    def _get_action(self, data: dict[str, Any], deadline: Deadline) -> Any:
        """Ask; in the other form, too, if the server refuses and has not shown which one it writes."""
        try:
            return self._call("get_action", data, deadline)
        except WireError as first:
            if first.kind != "refused" or self._wire is not None:
                raise
            self._wire = codec.ArrayForm.MSGPACK_NUMPY
            try:
                return self._call("get_action", data, deadline)
            except WireError as second:
                self._wire = None
                if second.kind != "refused" or str(second) == str(first):
                    raise
                raise WireError(f"{first}; to msgpack_numpy arrays {second}", "refused") from None

    def _observation(self, request: PolicyRequest) -> dict[str, Any]:
        quality = self._options.jpeg_quality if self._capabilities.get("jpeg") else 0
        video = {k: _frame(image, quality) for k, image in request.images.items()}
        state = {k: v.astype(np.float32)[None, None] for k, v in request.state.items()}
        language = {}
        if self._options.keys.instruction:
            language = {self._options.keys.instruction: [[request.instruction]]}
        if not self._options.flat_keys:
            return {"video": video, "state": state, "language": language}
        flat: dict[str, Any] = {f"video.{k}": v for k, v in video.items()}
        flat |= {f"state.{k}": v for k, v in state.items()}
        return flat | {k: v[0] for k, v in language.items()}

    def reset(self, deadline: Deadline) -> None:
        """One `reset`."""
        self._call("reset", {"options": None}, deadline)

    def interrupt(self) -> None:
        """Nothing to do: the waker ends every wait."""

    def drop(self) -> None:
        """Give the connection up."""
        self._link.drop()

    def close(self) -> None:
        """Give everything up."""
        self._link.drop()


def _check_joints(action: codec.ModalityConfig, wanted: Iterable[str]) -> None:
    """What the server says of the kind of its actions: targets of joints are taken, nothing else.

    Relative ones (``RELATIVE``) are made absolute by NVIDIA's server before they are sent.

    Raises:
        WireError: kind ``keys``: an action that `wanted` names is an end effector's, or a difference.
    """
    for key, config in zip(action.modality_keys, action.action_configs or (), strict=False):
        if key not in wanted or not isinstance(config, Mapping):
            continue
        said = {name: str(config.get(name, "")).rsplit(".", 1)[-1].upper() for name in ("rep", "type")}
        if said["type"] == "EEF" or said["rep"] == "DELTA":
            kind = "of an end effector" if said["type"] == "EEF" else "differences (DELTA)"
            raise WireError(
                f"the server's action {key!r} is {kind}; a policy here gives joints' targets", "keys"
            )


def _is(value: Any, text: str) -> bool:
    """Whether it is that text; an array would be compared element by element."""
    return isinstance(value, str) and value == text


def _modality(name: str, config: Any) -> codec.ModalityConfig:
    """A modality; one that came without a marker is a plain map."""
    try:
        return config if isinstance(config, codec.ModalityConfig) else codec.modality(config)
    except WireError as error:
        raise WireError(f"get_modality_config, {name[:100]!r}: {error}", "version") from None


def _frame(image: Any, quality: int) -> Any:
    if quality and image.ndim == 3:
        return {jpeg.KEY: jpeg.encode(image, quality)}
    return image[None, None]


def parse_actions(reply: Any, flat: bool = False) -> Mapping[str, Floats]:
    """``[{key: float[B, T, D]}, info]`` to ``{key: [T, D]}``: one was asked, so `B` is 1.

    Raises:
        WireError: kind ``shape`` or ``malformed``.
    """
    if not isinstance(reply, list) or len(reply) != 2 or not isinstance(reply[0], dict):
        raise WireError("get_action did not answer with [actions, info]")
    out = {}
    for key, value in reply[0].items():
        if not isinstance(value, np.ndarray) or value.ndim != 3 or value.shape[0] != 1 or 0 in value.shape:
            shape = list(value.shape) if isinstance(value, np.ndarray) else type(value).__name__
            raise WireError(f"action {key!r} is {shape}; [1, steps, size] is wanted", "shape")
        if value.dtype.kind not in "fiu":
            raise WireError(f"action {key!r} is {value.dtype}; numbers are wanted", "shape")
        out[str(key).removeprefix("action.") if flat else str(key)] = value[0].astype(np.float64)
    return out
