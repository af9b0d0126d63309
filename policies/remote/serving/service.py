"""What the four front ends share: the engine, the clients' own state, the token, the way out."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
import numpy as np
from loguru import logger

from policies.encoding.limits import Limits, WireError
from policies.entries import TIP_ENTRIES, thought_size
from policies.remote.serving.engine import Answer, Engine
from policies.remote.serving.metrics import Metrics
from policies.remote.serving.options import FrontOptions
from policies.remote.serving.robot_side import RobotSide
from policies.remote.serving.turns import Turns
from runtime.clock import NS_PER_S, Clock
from runtime.interfaces import PolicyError, PolicySpec
from runtime.joints import JointLayout
from runtime.masking import secret_of
from runtime.messages import Observation

T = TypeVar("T")

MAX_ITEMS = 4_000
"""Values in one message, which is read before its token can be. An observation has below 500."""
ALONE_NS = 30 * NS_PER_S
"""A policy with one memory is told to forget only if nobody else asked within this time."""
_NOT_THE_MESSAGE = frozenset({"busy", "stopping", "gone"})
"""Refusals that are not for what a client has sent."""


@dataclass(slots=True)
class Client:
    """What the server remembers of one client. `memory` is the front end's own.

    Attributes:
        answered: it has shown the token, and has had an answer.
        refused: at least one of its messages was refused for what it was.
    """

    name: str
    seen_ns: int
    step: int = 0
    pending: int = 0
    answered: bool = False
    refused: bool = False
    memory: dict[str, Any] = field(default_factory=dict)


def told(error: Exception) -> str:
    """What a client is told of `error`: nothing of what goes on inside."""
    return str(error) if isinstance(error, WireError | PolicyError) else "internal error of the server"


class Front(Protocol):
    """One protocol's listening end."""

    address: str

    async def open(self) -> None:
        """Bind and listen.

        Raises:
            OSError: the address is taken.
        """

    async def refuse_new(self) -> None:
        """Take no new requests; those in flight are still answered."""

    async def close(self) -> None:
        """Close every connection."""


class Service:
    """One server's state.

    Args:
        options: the ``[serve]`` table.
        engine: answers observations.
        joints: the robot's.
        spec: of the policy.
        metrics: gets counted into.
        clock: the real one, except in tests.
    """

    def __init__(
        self,
        options: FrontOptions,
        engine: Engine,
        joints: JointLayout,
        spec: PolicySpec,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self.options = options
        self.engine = engine
        self.metrics = metrics
        self.clock = clock
        self.policy_name = spec.name
        self.takes_prefix = spec.takes_prefix
        self.chunk_steps = options.chunk_steps or spec.chunk_steps
        self.side = RobotSide(options.resolved_keys(), options.resolved_units(), joints)
        asked = {entry for entries in self.side.keys.state.values() for entry in entries}
        if spec.tip and (unasked := [entry for entry in TIP_ENTRIES if entry not in asked]):
            raise PolicyError(
                f"policy {spec.name} needs to know where the object is, and no client is asked for "
                f"{', '.join(unasked)}: give tip.x, tip.y and tip.z in serve.keys.state"
            )
        if spec.thought > thought_size(asked):
            raise PolicyError(
                f"policy {spec.name} acts on a slow half's thought, and no client is asked for it: give "
                f"thought.0 to thought.{spec.thought - 1}, and thought.age, in serve.keys.state"
            )
        self.limits = Limits(size_bytes=options.max_message_mib * 1024 * 1024, items=MAX_ITEMS)
        self.stopping_asked = asyncio.Event()
        self.gone: Callable[[Iterable[str]], Iterable[str]] = lambda names: ()
        """The front end's: which of the clients so named have no connection any more."""
        self._clients: dict[str, Client] = {}
        self._turns = Turns(clock)
        self._swept_ns = 0
        self._told: Counter[str] = Counter()
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._token = secret_of(options.token_env) if options.token_env else ""
        if options.token_env and not self._token:
            raise PolicyError(f"token_env: environment variable {options.token_env} is not set")

    def one_action_key(self) -> str:
        """The only key of the action, for a protocol whose chunk has no names.

        Raises:
            PolicyError: there are several, or none.
        """
        names = list(self.side.keys.action)
        if len(names) != 1:
            protocol, have = self.options.protocol, ", ".join(names) or "none"
            raise PolicyError(f"serve.keys.action takes one key with protocol {protocol!r}, not {have}")
        return names[0]

    # --- who may

    def allowed(self, given: object) -> bool:
        """Whether `given` is the token (in constant time), or none is needed."""
        if not self._token:
            return True
        text = given if isinstance(given, str) else ""
        return hmac.compare_digest(text.encode(), self._token.encode())

    def client(self, name: str) -> Client:
        """The state of the client called `name`; to be asked for once it has shown its token.

        The longest silent one makes room, but never one that waits for an answer.

        Raises:
            WireError: kind ``busy``: there are `max_clients`, and all wait.
        """
        found = self._clients.pop(name, None)
        while (silent := self._silent(1 if found is None else 0)) is not None:
            self.forget(silent.name)
        if found is None:
            self._forget_gone()
            if len(self._clients) >= self.options.max_clients:
                raise WireError(f"{len(self._clients)} clients wait for answers already", "busy")
            found = Client(name, 0)
        found.seen_ns = self.clock.now_ns()
        self._clients[name] = found  # last in order: most recently seen
        self.metrics.clients.set(len(self._clients))
        return found

    def _forget_gone(self) -> None:
        """Those whose connection has ended, with their policies; looked for once a second at most."""
        now_ns = self.clock.now_ns()
        if now_ns - self._swept_ns < NS_PER_S and len(self._clients) < self.options.max_clients:
            return
        self._swept_ns = now_ns
        idle = [each.name for each in self._clients.values() if not each.pending]
        for name in self.gone(idle):
            self.forget(name)

    def _silent(self, more: int) -> Client | None:
        """The longest silent client that does not wait, if it is idle for too long or room is wanted."""
        crowded = len(self._clients) + more > self.options.max_clients
        idle_ns = self.options.client_idle_s * NS_PER_S
        for client in self._clients.values():
            if not crowded and self.clock.now_ns() - client.seen_ns <= idle_ns:
                return None
            if not client.pending:
                return client
        return None

    def forget(self, name: str) -> None:
        """The client called `name` has gone."""
        if self._clients.pop(name, None) is not None:
            self.engine.forget(name)
        self.metrics.clients.set(len(self._clients))

    # --- asking

    @contextlib.contextmanager
    def request(self, client: Client, endpoint: str) -> Iterator[None]:
        """Around the answering of one request: counts, times, and bounds what one client may ask.

        Raises:
            WireError: kind ``busy`` or ``stopping``.
        """
        if self.stopping_asked.is_set():
            raise WireError("the server is stopping", "stopping")
        if client.pending >= self.options.max_pending:
            raise WireError(f"{client.pending} requests of this client wait already", "busy")
        started = self.clock.now_ns()
        client.pending += 1
        self._in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            client.pending -= 1
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
            self.metrics.latency_s.observe((self.clock.now_ns() - started) / NS_PER_S)
        client.answered = True
        self.metrics.request(endpoint)

    def trusted(self, name: str) -> bool:
        """Whether the client called `name` has had an answer, and no message of its was refused."""
        client = self._clients.get(name)
        return client is not None and client.answered and not client.refused

    async def read(self, name: str, decode: Callable[[], T]) -> T:
        """`decode`, at once for a client that is trusted, else when it is its turn (see `Turns`).

        Raises:
            WireError: as `decode`.
        """
        return decode() if self.trusted(name) else await self._turns.read(name, decode)

    async def built(self, make: Callable[[], T], images: Iterable[Any]) -> T:
        """`make`, off the loop if any of `images` is still compressed: decoding takes milliseconds.

        Raises:
            WireError: as `make`.
        """
        if all(isinstance(image, np.ndarray) for image in images):
            return make()
        return await anyio.to_thread.run_sync(make)

    async def infer(self, client: Client, observations: Sequence[Observation]) -> list[Answer]:
        """Chunks of at most `chunk_steps`, in the robot's units.

        Raises:
            PolicyError: the policy cannot answer.
        """
        answers = await self.engine.infer(observations, client.name)
        return [Answer(rows[: self.chunk_steps], status) for rows, status in answers]

    async def reset(self, client: Client) -> None:
        """A new episode of `client`: its own state, and the policy's if nobody else is using it."""
        client.step = 0
        client.memory.clear()
        if self.engine.isolated:
            await self.engine.reset(client.name)
            return
        recent = self.clock.now_ns() - ALONE_NS
        others = [c.name for c in self._clients.values() if c is not client and c.seen_ns > recent]
        if others:
            logger.info(
                "{} begins an episode beside {} others: the policy is not reset", client.name, len(others)
            )
            return
        await self.engine.reset(client.name)

    def refused(self, who: str, error: Exception) -> None:
        """Count a message that got no chunk; log the 1st, 2nd, 4th... of its kind: a peer can send many."""
        kind = "internal"
        if isinstance(error, WireError | PolicyError):
            kind = error.kind if isinstance(error, WireError) else "policy"
        client = self._clients.get(who)
        if client is not None and isinstance(error, WireError) and kind not in _NOT_THE_MESSAGE:
            client.refused = True
        self.metrics.refuse(kind)
        self._told[kind] += 1
        times = self._told[kind]
        if times & (times - 1) == 0:
            traced = logger.opt(exception=error if kind == "internal" else None)
            traced.warning("{}: refused ({}, time {}): {}", who, kind, times, error)

    # --- the way out

    def kill(self) -> None:
        """Begin to stop. On the loop only."""
        self.stopping_asked.set()

    async def drained(self) -> bool:
        """Wait for what is in flight, at most `drain_s`; whether all was answered."""
        deadline = self.clock.now_ns() + round(self.options.drain_s * NS_PER_S)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(self._cancel_at, deadline, scope)
                await self._idle.wait()
                group.cancel_scope.cancel()
        return self._idle.is_set()

    async def _cancel_at(self, deadline_ns: int, scope: anyio.CancelScope) -> None:
        await self.clock.sleep_until_ns(deadline_ns)
        scope.cancel()
