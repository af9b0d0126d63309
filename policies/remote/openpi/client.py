"""The openpi client: an observation as one flat map, a chunk back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policies.encoding.limits import WireError
from policies.remote import jpeg
from policies.remote.client import RemotePolicy, limits_of, token_of
from policies.remote.extras import extras_of, reply_of
from policies.remote.link import Counts, Deadline, PolicyReply, PolicyRequest
from policies.remote.openpi import codec
from policies.remote.openpi.socket import WebSocket
from policies.remote.options import OpenpiTable
from runtime.clock import Clock
from runtime.joints import JointLayout
from runtime.messages import Floats


class OpenpiPolicy(RemotePolicy):
    """An openpi policy server as a `runtime.interfaces.Policy`."""

    def __init__(self, options: OpenpiTable, robot: JointLayout, clock: Clock) -> None:
        super().__init__("openpi", options, robot, clock)
        self.use(OpenpiSession(options, token_of(options), self))


class OpenpiSession:
    """Observations out, chunks in, in order: what is late is what was not waited for."""

    def __init__(self, options: OpenpiTable, token: str, policy: RemotePolicy) -> None:
        self._options = options
        self._limits = limits_of(options)
        self._socket = WebSocket(options.host, options.port, self._limits, token, policy.waker)
        self._counts: Counts = policy.counts
        self._unanswered = 0
        self._ours: Mapping[str, Any] = {}
        self.where = self._socket.where

    def open(self, deadline: Deadline) -> None:
        """Connect and read the server's metadata."""
        self._unanswered = 0
        self._socket.open(deadline)
        metadata = codec.decode(self._socket.receive(deadline), self._limits)
        if not isinstance(metadata, dict):
            raise WireError("the server's first message is not openpi's metadata", "version")
        ours = metadata.get(codec.OURS)
        self._ours = ours if isinstance(ours, dict) else {}

    def _call(self, message: dict[str, Any], deadline: Deadline) -> dict[Any, Any]:
        pieces = codec.encode(message)
        self._socket.refresh(deadline)
        self._socket.send(pieces, deadline)
        self._unanswered += 1
        while True:
            reply = self._socket.receive(deadline)
            self._unanswered -= 1
            if not self._unanswered:
                break
            self._counts.add("late")
        answer = codec.decode(reply, self._limits)
        if not isinstance(answer, dict):
            raise WireError(f"the server answered with a {type(answer).__name__}, not a map")
        return answer

    @property
    def takes_prefix(self) -> bool:
        """Whether the policy behind the server goes on from a prefix."""
        return bool(self._ours.get("prefix"))

    def ask(self, request: PolicyRequest, deadline: Deadline) -> PolicyReply:
        """One observation."""
        quality = self._options.jpeg_quality if self._ours.get("jpeg") else 0
        message: dict[str, Any] = {}
        for key, image in request.images.items():
            packed = quality and image.ndim == 3
            message[key] = {jpeg.KEY: jpeg.encode(image, quality)} if packed else image
        message |= {key: value.astype(np.float32) for key, value in request.state.items()}
        if self._options.keys.instruction:
            message[self._options.keys.instruction] = request.instruction
        if self._ours:
            message[codec.OURS] = extras_of(request)
        answer = self._call(message, deadline)
        actions = parse_actions(answer, tuple(self._options.keys.action))
        return reply_of(actions, answer.get(codec.OURS))

    def reset(self, deadline: Deadline) -> None:
        """Openpi has none; our own server has."""
        if self._ours.get("reset"):
            self._call({codec.OURS: {"reset": True}}, deadline)

    def interrupt(self) -> None:
        """Nothing to do: the waker ends every wait."""

    def drop(self) -> None:
        """Give the connection up."""
        self._socket.drop()

    def close(self) -> None:
        """Give everything up."""
        self._socket.drop()


def parse_actions(reply: Mapping[Any, Any], keys: tuple[str, ...]) -> Mapping[str, Floats]:
    """The chunk by `keys`, each ``[T, n]``.

    Raises:
        WireError: kind ``shape``: a key is missing or is not a matrix of numbers.
    """
    out = {}
    for key in keys:
        value = reply.get(key)
        if not isinstance(value, np.ndarray) or value.ndim != 2 or 0 in value.shape:
            shape = list(value.shape) if isinstance(value, np.ndarray) else type(value).__name__
            have = ", ".join(sorted(str(k) for k in reply))[:200]
            raise WireError(f"reply {key!r} is {shape}; [steps, size] is wanted (there is: {have})", "shape")
        if value.dtype.kind not in "fiu":
            raise WireError(f"reply {key!r} is {value.dtype}; numbers are wanted", "shape")
        out[key] = value.astype(np.float64)
    return out
