"""The GR00T client: an observation in GR00T's nested or flat layout, a chunk back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policies.encoding.limits import WireError
from policies.remote import jpeg
from policies.remote.client import RemotePolicy, limits_of, token_of
from policies.remote.extras import extras_of, status_of
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
        self._link = ZmqLink(
            options.host, options.port, self._limits, options.keep_alive_s, policy.waker, policy.counts
        )
        self.where = self._link.where

    def _call(self, endpoint: str, data: dict[str, Any] | None, deadline: Deadline) -> Any:
        message = codec.request(endpoint, data, self._token)
        return codec.reply(self._link.exchange(message, deadline), self._limits)

    def open(self, deadline: Deadline) -> None:
        """Connect, `ping`, and compare the configured keys with the server's."""
        self._link.open(deadline)
        status = self._call("ping", None, deadline)
        if not isinstance(status, dict) or not _is(status.get("status"), "ok"):
            raise WireError("the server's answer to ping is not GR00T's", "version")
        if self._options.check_modalities:
            self._check_modalities(self._call("get_modality_config", None, deadline))
        self._capabilities = self._ask_capabilities(deadline)

    def _ask_capabilities(self, deadline: Deadline) -> Mapping[str, Any]:
        try:
            answer = self._call(codec.CAPABILITIES, None, deadline)
        except WireError as error:
            if error.kind != "refused":
                raise
            return {}
        return answer if isinstance(answer, dict) else {}

    def _check_modalities(self, config: Any) -> None:
        if not isinstance(config, dict):
            raise WireError("get_modality_config did not answer with a map", "version")
        keys = self._options.keys
        sent = {
            "video": set(keys.cameras.values()),
            "state": set(keys.state),
            "language": {keys.instruction} - {""},
        }
        for modality, names in sent.items():
            found = config.get(modality)
            if isinstance(found, codec.ModalityConfig) and set(found.modality_keys) - names:
                missing = ", ".join(sorted(set(found.modality_keys) - names))
                raise WireError(f"the server wants {modality} {missing}, which keys does not name", "keys")
        action = config.get("action")
        if isinstance(action, codec.ModalityConfig) and set(keys.action) - set(action.modality_keys):
            extra = ", ".join(sorted(set(keys.action) - set(action.modality_keys)))
            raise WireError(f"keys.action names {extra}, which the server does not give", "keys")

    @property
    def takes_prefix(self) -> bool:
        """Whether the policy behind the server goes on from a prefix."""
        return bool(self._capabilities.get("prefix"))

    def ask(self, request: PolicyRequest, deadline: Deadline) -> PolicyReply:
        """One `get_action`."""
        options = extras_of(request) if self._capabilities else None
        data = {"observation": self._observation(request), "options": options}
        answer = self._call("get_action", data, deadline)
        actions = parse_actions(answer, self._options.flat_keys)
        return PolicyReply(actions, status_of(answer[1]))

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


def _is(value: Any, text: str) -> bool:
    """Whether it is that text; an array would be compared element by element."""
    return isinstance(value, str) and value == text


def _frame(image: Any, quality: int) -> Any:
    if quality and image.ndim == 3:
        return {jpeg.KEY: jpeg.encode(image, quality)}
    return image[None, None]


def parse_actions(reply: Any, flat: bool = False) -> Mapping[str, Floats]:
    """``[{key: float[B, T, D]}, info]`` to ``{key: [T, D]}`` of the first of the batch.

    Raises:
        WireError: kind ``shape`` or ``malformed``.
    """
    if not isinstance(reply, list) or len(reply) != 2 or not isinstance(reply[0], dict):
        raise WireError("get_action did not answer with [actions, info]")
    out = {}
    for key, value in reply[0].items():
        if not isinstance(value, np.ndarray) or value.ndim != 3 or value.shape[0] < 1:
            shape = list(value.shape) if isinstance(value, np.ndarray) else type(value).__name__
            raise WireError(f"action {key!r} is {shape}; [batch, steps, size] is wanted", "shape")
        out[str(key).removeprefix("action.") if flat else str(key)] = value[0].astype(np.float64)
    return out
