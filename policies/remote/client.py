"""A policy that is somewhere else: maps, deadlines, backoff and counters around one protocol's session."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
from loguru import logger

from policies.encoding.limits import Limits, WireError
from policies.mapping import ObservationMap
from policies.remote.link import Counts, Deadline, LinkError, PolicyRequest, Session, Waker
from policies.remote.options import RemoteOptions
from runtime.clock import NS_PER_S, Clock
from runtime.interfaces import NoAnswerError, PolicyError, PolicySpec, policy_error
from runtime.joints import JointLayout
from runtime.masking import secret_of
from runtime.messages import Observation, PolicyAnswer, PolicyStatus

T = TypeVar("T")

SILENT_LIMIT = 3
"""Requests in a row without an answer after which the connection itself is suspected."""


def token_of(options: RemoteOptions) -> str:
    """The token that `options` names.

    Raises:
        PolicyError: the environment variable is not set.
    """
    if not options.token_env:
        return ""
    token = secret_of(options.token_env)
    if not token:
        raise PolicyError(f"token_env: environment variable {options.token_env} is not set")
    return token


def limits_of(options: RemoteOptions) -> Limits:
    """How large a server's message may be."""
    return Limits(size_bytes=options.max_message_mib * 1024 * 1024)


class RemotePolicy:
    """`runtime.interfaces.Policy` over a `Session`.

    `infer`, `warm_up` and `reset` are for one thread, which they block for at most the configured
    deadlines; `close` may be called from any. A failure is one `PolicyError`, counted, and the next call
    connects again once the backoff has passed (on the injected clock).
    """

    def __init__(self, name: str, options: RemoteOptions, robot: JointLayout, clock: Clock) -> None:
        keys = options.keys
        self.options = options
        self.map = ObservationMap(keys, options.units, robot)
        self.spec = PolicySpec(
            name=name,
            chunk_steps=options.chunk_steps,
            joints=len(robot.names),
            cameras=tuple(dict.fromkeys((*keys.cameras, *keys.depths, *keys.tracked))),
            masks=keys.tracked,
            tip=keys.wants_tip,
            thought=keys.thought_size,
            end_effector=self.map.wants_poses,
            notes={"server": f"{options.host}:{options.port}"},
        )
        self.counts = Counts()
        self.waker = Waker()
        self._session: Session | None = None
        self._clock = clock
        self._connected = False
        self._connected_before = False
        self._closed = False
        self._silent = 0
        self._failures = 0
        self._proven = False
        self._retry_ns = clock.now_ns()
        self._busy = threading.Lock()

    def use(self, session: Session) -> None:
        """Set the protocol's session; the subclass's last act of construction."""
        self._session = session

    # --- the Policy protocol

    def warm_up(self) -> None:
        """Connect, and check that the server speaks the protocol and knows the configured keys."""
        with self._busy:
            self._guarded(lambda session: None)

    def infer(self, observation: Observation) -> PolicyAnswer:
        """Ask the server; see `runtime.interfaces.Policy`."""
        request = self._request(observation)
        with self._busy:
            self.counts.add("requests")
            self._say_that_time_stands_still()
            reply = self._guarded(lambda s: s.ask(request, Deadline(self._patience_s)))
        try:
            rows = self.map.actions_to_robot(reply.actions, observation.arm.position)
        except PolicyError:
            self.counts.add("wrong_shape")
            raise
        if not np.isfinite(rows).all():
            self.counts.add("not_finite")
            raise PolicyError(f"{self.spec.name} at {self._where}: actions hold NaN or infinity")
        self.counts.add("replies")
        self._proven = True
        status = reply.status
        # One that has failed may not say it when it is done.
        if status is not None and status[0] is not PolicyStatus.FAILED and not self.spec.tells_end:
            self.spec = replace(self.spec, tells_end=True)
        if reply.latent is not None and self.spec.latent != reply.latent.size:
            self.spec = replace(self.spec, latent=reply.latent.size)
        said = (PolicyStatus.RUNNING, "") if status is None else status
        return PolicyAnswer(rows[: self.options.chunk_steps], *said, reply.reasoning, reply.latent)

    @property
    def unready(self) -> str:
        """Why the next answer may take as long as a first one: none has come on this connection yet."""
        if self._proven:
            return ""
        limit_s = self.options.ready_timeout_s
        return f"no answer of the server at {self._where} yet; its first may take {limit_s:g} s"

    def _say_that_time_stands_still(self) -> None:
        """On a stepped clock nobody else can say it meanwhile."""
        if self._clock.stepped and not self._proven:
            said = "{}: waiting for the first answer of {}, up to {:g} s; simulated time stands still"
            logger.info(said, self.spec.name, self._where, self._patience_s)

    @property
    def _patience_s(self) -> float:
        options = self.options
        longer_s = max(options.ready_timeout_s, options.request_timeout_s)
        return options.request_timeout_s if self._proven else longer_s

    def interrupt(self) -> None:
        """End a running call, and every later one. From any thread."""
        if not self._closed:
            self.waker.wake()
            if self._session is not None:
                self._session.interrupt()

    def reset(self) -> None:
        """Tell the server that a new episode begins. A server that is away is told nothing."""
        with self._busy:
            if self._connected:
                self._guarded(lambda s: s.reset(Deadline(self.options.request_timeout_s)))

    def close(self) -> None:
        """End a running call, and leave no socket and no thread. Idempotent."""
        if self._closed:
            return
        self.interrupt()
        self._closed = True
        with self._busy:
            if self._session is not None:
                self._session.close()
            self.waker.close()

    def statistics(self) -> Mapping[str, int]:
        """Requests, replies and what went wrong, by kind."""
        return dict(self.counts.by_kind)

    # --- inside

    @property
    def _where(self) -> str:
        return self._session.where if self._session is not None else self.spec.notes["server"]

    def _request(self, observation: Observation) -> PolicyRequest:
        joints = len(self.map.robot.names)
        if observation.arm.position.shape != (joints,):
            have = observation.arm.position.shape[0]
            raise PolicyError(f"{self.spec.name}: observation of {have} joints; configured are {joints}")
        committed = observation.committed
        if committed.size == 0:
            committed = np.zeros((0, joints))
        return PolicyRequest(
            step=observation.step,
            stamp_s=observation.stamp_ns / NS_PER_S,
            state=self.map.state_vectors(observation),
            images=self.map.images(observation),
            instruction=self.map.instruction(observation),
            prefix=self.map.rows_to_policy(committed, observation.arm.position),
            frozen=observation.frozen_steps,
        )

    def _guarded(self, call: Callable[[Session], T]) -> T:
        """`call` on an open session; every failure becomes one counted `PolicyError`."""
        try:
            try:
                answer = call(self._opened())
            except LinkError as error:
                if error.kind != "stale":
                    raise
                self._give_up()  # nothing was asked on it yet: connect again, at once
                answer = call(self._opened())
        except (LinkError, WireError) as error:
            raise self._failed(error) from None
        self._silent = 0
        return answer

    def _opened(self) -> Session:
        if self._closed or self._session is None:
            raise LinkError("closed", "the client was closed")
        if self._connected:
            return self._session
        wait_ns = self._retry_ns - self._clock.now_ns()
        if wait_ns > 0:
            raise LinkError("waiting", f"not connected; next attempt in {wait_ns / NS_PER_S:.1f} s")
        try:
            self._session.open(Deadline(self.options.connect_timeout_s))
        except (LinkError, WireError):
            self._session.drop()
            self._back_off()
            raise
        self.spec = replace(self.spec, takes_prefix=self._session.takes_prefix)
        self.counts.add("reconnects" if self._connected_before else "connects")
        self._connected = self._connected_before = True
        self._proven = False
        self._failures = self._silent = 0
        logger.info("{}: connected to {}", self.spec.name, self._where)
        return self._session

    def _give_up(self) -> None:
        self._connected = False
        if self._session is not None:
            self._session.drop()

    def _back_off(self) -> None:
        wait_s = min(self.options.backoff_s * 2.0 ** min(self._failures, 20), self.options.backoff_max_s)
        self._failures += 1
        self._retry_ns = self._clock.now_ns() + round(wait_s * NS_PER_S)

    def _failed(self, error: LinkError | WireError) -> PolicyError:
        self.counts.add(error.kind)
        broken = isinstance(error, LinkError) and error.broken and error.kind != "waiting"
        if error.kind == "timeout":
            self._silent += 1
            broken = broken or self._silent >= SILENT_LIMIT
        if isinstance(error, WireError) and error.kind != "refused":
            broken = True  # what follows such a message cannot be trusted
        if broken and self._connected:
            self._give_up()
            self._back_off()
        if error.kind == "refused":
            known = policy_error(str(error))
            if isinstance(known, NoAnswerError):
                return known
        return PolicyError(f"{self.spec.name} at {self._where}: {error}")
