"""The LeRobot client: observations and chunks as two calls of one gRPC service."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np

from policies.encoding.limits import WireError
from policies.remote import jpeg
from policies.remote.client import RemotePolicy, limits_of, token_of
from policies.remote.extras import LONGEST_WHY, extras_of, reply_of
from policies.remote.hosts import resolved
from policies.remote.lerobot import codec, rpc
from policies.remote.link import Deadline, LinkError, PolicyReply, PolicyRequest
from policies.remote.options import LerobotTable
from runtime.addresses import is_loopback
from runtime.clock import Clock
from runtime.interfaces import PolicyError
from runtime.joints import JointLayout

EMPTY_ANSWERS = 3
"""Answers without actions to one observation, after which it is taken for refused. Each takes up to 2 s."""
HEIGHT, WIDTH = 480, 640
"""Said of images whose size is the camera's; LeRobot does not look at it."""


class LerobotPolicy(RemotePolicy):
    """A LeRobot policy server as a `runtime.interfaces.Policy`.

    Every observation is marked ``must_go``: the runtime asks when its horizon is short, so one that the
    server drops as too similar would starve the arm.
    """

    def __init__(self, options: LerobotTable, robot: JointLayout, clock: Clock) -> None:
        super().__init__("lerobot", options, robot, clock)
        wide = [key for key, entries in self.map.state.items() if len(entries) != 1]
        if wide or len(options.keys.action) != 1:
            raise PolicyError("lerobot: every key of keys.state takes one entry, and keys.action has one key")
        self.use(LerobotSession(options, token_of(options), self))


class LerobotSession:
    """``Ready``, ``SendPolicyInstructions``, ``SendObservations`` and ``GetActions``."""

    def __init__(self, options: LerobotTable, token: str, policy: RemotePolicy) -> None:
        self._options = options
        self._metadata = [("authorization", f"Bearer {token}")] if token else []
        self._limits = limits_of(options)
        self._counts = policy.counts
        self._policy = policy
        self._channel: Any = None
        self._calls: dict[str, Any] = {}
        self._ours: frozenset[str] | None = None
        host = f"[{options.host}]" if ":" in options.host else options.host
        self.where = f"{host}:{options.port}"

    def open(self, deadline: Deadline) -> None:
        """Connect, say `Ready`, and have the policy loaded."""
        self.drop()
        resolved(
            self._options.host, self._options.port
        )  # gRPC calls a host that is not there one that is slow
        options = rpc.channel_options(self._limits.size_bytes, self._options.keep_alive_s)
        if is_loopback(self._options.host):
            options.append(("grpc.enable_http_proxy", 0))
        self._channel = grpc.insecure_channel(self.where, options=options)
        plain = {"request_serializer": None, "response_deserializer": None}
        prefix = f"/{rpc.SERVICE}/"
        for name in ("Ready", "SendPolicyInstructions", "SendObservations", "GetActions"):
            # a stream of one message is a single message on the wire, and needs no thread here
            self._calls[name] = self._channel.unary_unary(prefix + name, **plain)
        self._calls["stream"] = self._channel.stream_unary(prefix + "SendObservations", **plain)
        _, call = self._call("Ready", b"", deadline, wait=True)
        said = dict(call.initial_metadata()).get(rpc.CAPABILITIES)
        self._ours = None if said is None else frozenset(str(said).split())
        body = codec.encode_setup(self._setup(), self._options.classes)
        self._call("SendPolicyInstructions", rpc.data_message(body), Deadline(self._options.setup_timeout_s))

    def _setup(self) -> codec.PolicySetup:
        keys = self._options.keys
        names = list(keys.state)
        features: dict[str, Any] = {
            "observation.state": {"dtype": "float32", "shape": (len(names),), "names": names}
        }
        for camera, key in keys.cameras.items():
            rule = keys.rule_for(camera)
            shape = (rule.height or HEIGHT, rule.width or WIDTH, 3)
            described = {"dtype": "image", "shape": shape, "names": ["height", "width", "channels"]}
            features[f"observation.images.{key}"] = described
        return codec.PolicySetup(
            self._options.policy_type,
            self._options.pretrained,
            features,
            self._options.chunk_steps,
            self._options.device,
        )

    def _call(self, name: str, message: Any, deadline: Deadline, wait: bool = False) -> tuple[bytes, Any]:
        if self._policy.waker.woken:
            raise LinkError("closed", "the client was closed")
        with _translated(deadline, connecting=wait):
            reply, call = self._calls[name].with_call(
                message, timeout=max(deadline.left_s(), 0.001), metadata=self._metadata, wait_for_ready=wait
            )
            return reply, call

    @property
    def takes_prefix(self) -> bool:
        """Whether the policy behind the server goes on from a prefix."""
        return self._ours is not None and "prefix" in self._ours

    def ask(self, request: PolicyRequest, deadline: Deadline) -> PolicyReply:
        """Send one observation, then ask until its chunk comes."""
        pieces = codec.encode_observation(self._observation(request), self._options.classes)
        messages = rpc.observation_messages(pieces)
        if len(messages) == 1:
            self._call("SendObservations", messages[0], deadline)
        else:
            self._call("stream", iter(messages), deadline)
        empty = 0
        while True:
            answer, call = self._call("GetActions", b"", deadline)
            body = rpc.read_data(answer)
            if len(body):
                actions = codec.decode_actions(body, self._limits)
                if actions[0].timestep == request.step:
                    (key,) = self._options.keys.action
                    return reply_of({key: np.stack([a.action for a in actions])}, _said(call))
                self._counts.add("late")
            else:
                self._counts.add("empty")
                empty += 1
                _check_refused(call, empty)
            if deadline.passed:
                raise LinkError("timeout", f"no actions within {deadline.seconds:g} s", broken=False)

    def _observation(self, request: PolicyRequest) -> codec.TimedObservation:
        values: dict[str, Any] = {key: float(value[0]) for key, value in request.state.items()}
        quality = self._options.jpeg_quality if self._ours is not None and "jpeg" in self._ours else 0
        if self._ours is not None:
            values[rpc.CAPABILITIES] = extras_of(request)
        for key, image in request.images.items():
            values[key] = jpeg.encode(image, quality) if quality and image.ndim == 3 else image
        if self._options.keys.instruction:
            values[self._options.keys.instruction] = request.instruction
        return codec.TimedObservation(request.stamp_s, request.step, values, must_go=True)

    def reset(self, deadline: Deadline) -> None:
        """``Ready`` flushes the server's state of this client."""
        self._call("Ready", b"", deadline)

    def interrupt(self) -> None:
        """End a call in flight, from any thread."""
        channel = self._channel
        if channel is not None:
            channel.close()

    def drop(self) -> None:
        """Close the channel; a call in flight ends."""
        channel, self._channel = self._channel, None
        self._calls = {}
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """Give everything up."""
        self.drop()


def _said(call: Any) -> Any:
    """What our own server adds to its answer."""
    text = dict(call.trailing_metadata() or ()).get(rpc.STATUS, "{}")
    try:
        return json.loads(text) if len(text) < 4096 else None
    except (ValueError, RecursionError):
        return None


def _check_refused(call: Any, times: int) -> None:
    """LeRobot's server answers with nothing where its policy raised, and so does ours, which says why.

    Raises:
        WireError: kind ``refused``.
        LinkError: the same without a reason: it may be another server than was told what to load.
    """
    said = _said(call)
    why = said.get("refused") if isinstance(said, dict) else None
    if isinstance(why, str):
        raise WireError(f"the server answered: {why[:LONGEST_WHY]}", "refused")
    if times >= EMPTY_ANSWERS:
        raise LinkError("refused", f"the server gave no actions {times} times; its log says why")


_KINDS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: ("timeout", False),
    grpc.StatusCode.UNAUTHENTICATED: ("token", True),
    grpc.StatusCode.PERMISSION_DENIED: ("token", True),
    grpc.StatusCode.UNAVAILABLE: ("lost", True),
    grpc.StatusCode.CANCELLED: ("closed", True),
}


@contextlib.contextmanager
def _translated(deadline: Deadline, connecting: bool) -> Iterator[None]:
    """Failures of gRPC as `LinkError`.

    Raises:
        LinkError, WireError: what went wrong, in one line.
    """
    try:
        yield
    except grpc.RpcError as error:
        code = error.code()
        detail = " ".join(str(error.details()).split())[:300]
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) and connecting:
            raise LinkError("connect", f"no gRPC server answered within {deadline.seconds:g} s") from None
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            detail = f"no answer within {deadline.seconds:g} s"
        if code not in _KINDS:
            raise WireError(f"the server answered {code.name}: {detail}", "refused") from None
        kind, broken = _KINDS[code]
        raise LinkError(kind, detail, broken=broken) from None
    except ValueError as error:  # the channel was closed meanwhile
        raise LinkError("closed", f"the client was closed: {error}") from None
