"""The ACT client: joints and images as a pickle, an action or a chunk back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policies.encoding.limits import WireError
from policies.remote import jpeg
from policies.remote.act_zmq import codec
from policies.remote.client import RemotePolicy, limits_of, token_of
from policies.remote.extras import extras_of, reply_of
from policies.remote.link import Deadline, PolicyReply, PolicyRequest
from policies.remote.options import ActRemoteTable
from policies.remote.zmq_link import ZmqLink
from runtime.clock import Clock
from runtime.interfaces import PolicyError
from runtime.joints import JointLayout


class ActRemotePolicy(RemotePolicy):
    """An ACT server as a `runtime.interfaces.Policy`.

    The original server answers one action per request, aggregated over time on its side: then a chunk has
    one row. Ours can be asked for the chunk itself, which is blended on the robot, where it is known what
    was executed.
    """

    def __init__(self, options: ActRemoteTable, robot: JointLayout, clock: Clock) -> None:
        super().__init__("act_zmq", options, robot, clock)
        if len(options.keys.action) != 1:
            raise PolicyError("act_zmq: keys.action takes one key")
        self.use(ActSession(options, token_of(options), self))


class ActSession:
    """Steps and resets over one ZeroMQ link."""

    def __init__(self, options: ActRemoteTable, token: str, policy: RemotePolicy) -> None:
        self._options = options
        self._token = {"token": token} if token else {}
        self._limits = limits_of(options)
        self._command = options.dialect == "command"
        self._ours: Mapping[str, Any] = {}
        self._link = ZmqLink(
            options.host, options.port, self._limits, options.keep_alive_s, policy.waker, policy.counts
        )
        self.where = self._link.where

    def _call(self, value: Any, deadline: Deadline) -> Mapping[str, Any]:
        return codec.reply(self._link.exchange(codec.encode(value), deadline), self._limits)

    def open(self, deadline: Deadline) -> None:
        """Connect, and begin an episode: the protocol has no other greeting."""
        self._link.open(deadline)
        ours = self._begin(deadline).get(codec.OURS)
        self._ours = ours if isinstance(ours, dict) else {}

    @property
    def takes_prefix(self) -> bool:
        """Whether the policy behind the server goes on from a prefix."""
        return bool(self._ours.get("prefix"))

    def ask(self, request: PolicyRequest, deadline: Deadline) -> PolicyReply:
        """One step."""
        state = np.concatenate(list(request.state.values()))
        quality = self._options.jpeg_quality if self._ours.get("jpeg") else 0
        images = {
            key: jpeg.encode(image, quality) if quality and image.ndim == 3 else image
            for key, image in request.images.items()
        }
        message: dict[str, Any] = {"command": "step"} if self._command else {}
        message |= {codec.state_key(request.state): state.astype(np.float32), "images": images, **self._token}
        if self._options.keys.instruction:
            message[self._options.keys.instruction] = request.instruction
        if self._ours:
            steps = {"steps": self._options.chunk_steps} if self._options.ask_steps else {}
            message[codec.OURS] = {**extras_of(request), **steps}
        answer = self._call(message, deadline)
        (action_key,) = self._options.keys.action
        for key in (action_key, "action", "joint_positions"):
            if key in answer:
                return reply_of({action_key: codec.matrix(answer[key])}, answer.get(codec.OURS))
        have = ", ".join(sorted(str(key) for key in answer))[:200]
        raise WireError(
            f"the answer has neither {action_key!r} nor joint_positions (there is: {have})", "shape"
        )

    def reset(self, deadline: Deadline) -> None:
        """A new episode."""
        self._begin(deadline)

    def _begin(self, deadline: Deadline) -> Mapping[str, Any]:
        plain = not self._command and not self._token
        return self._call(codec.RESET if plain else {"command": "reset_policy", **self._token}, deadline)

    def interrupt(self) -> None:
        """Nothing to do: the waker ends every wait."""

    def drop(self) -> None:
        """Give the connection up."""
        self._link.drop()

    def close(self) -> None:
        """Give everything up."""
        self._link.drop()
