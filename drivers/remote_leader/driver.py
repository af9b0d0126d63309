"""The follower's end: joints from another machine, as any leader's."""

from __future__ import annotations

import contextlib
import errno
import secrets
import select
import socket
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from loguru import logger

from drivers.remote_leader.link import Arrivals, LossWindow, RoundTrips
from drivers.remote_leader.options import RemoteLeaderOptions, secret_for, split_address
from drivers.remote_leader.wire import LARGEST, Datagram, Kind, differs, unpacked
from runtime.clock import NS_PER_S
from runtime.inputs import LONGEST_STATE_AGE_S
from runtime.messages import DeviceError, FaultKind
from runtime.part_context import ArmContext
from runtime.printable import line
from runtime.ring import Ring, capacity_for

_WAIT_S = 0.1
_WINDOW_S = 2.0
_AT_ONCE = 64
"""Datagrams that are looked at in one poll: whoever floods the port does not keep the thread."""
_OFFERS = 8
"""Sessions that are offered and not begun yet: a hello that is sent again takes nothing away."""
_FOLLOWED_S = 2 * LONGEST_STATE_AGE_S
"""So long after its last state a session is still on. Another leader's joints are anywhere else: they count
once this one has been silent for longer than an arm waits until it holds, and so engages anew, slowly."""

Peer = tuple[Any, ...]


class RemoteLeader:
    """`runtime.interfaces.LeaderDriver` for a leader on another machine.

    A hello is answered with a session of its own, a number by chance; the first state that names it begins
    it, once the one before is silent. So nothing that was recorded of an older session has an effect, and a
    hello that somebody else sends again has none either. Within a session only what is newer than all before
    does.

    Attributes:
        states: fields ``position``, ``velocity``, ``load``, float64 ``[D]``; stamped half the least round
            trip before they came, by this machine's clock: so old they are at least.
    """

    def __init__(self, config: RemoteLeaderOptions, context: ArmContext) -> None:
        self.name = context.name
        self._config = config
        self._clock = context.clock
        self._joints = context.joints
        self._host, self._port = split_address(config.listen)
        try:
            self._secret = secret_for(self._host, config.token_env)
        except ValueError as error:
            raise DeviceError(self.name, FaultKind.REFUSED, config.listen, str(error)) from None
        fields = dict.fromkeys(("position", "velocity", "load"), ((context.joints.joints,), "<f8"))
        self.states = Ring(fields, capacity_for(config.rate_hz, 1.0))
        self._socket: socket.socket | None = None
        self._offered: dict[int, None] = {}
        self._session = 0
        self._sent = 0
        self._trips, self._arrivals, self._window = RoundTrips(), Arrivals(), LossWindow(_WINDOW_S)
        self._refused: Counter[str] = Counter()
        self._stamp_ns = self._heard_ns = -1
        self._warned = False

    @property
    def port(self) -> int:
        """That it listens at; 0 while it is closed."""
        return 0 if self._socket is None else int(self._socket.getsockname()[1])

    @property
    def calibration(self) -> Mapping[str, Any]:
        """The leader's own machine has it."""
        return {}

    def statistics(self) -> Mapping[str, int]:
        """``lost``, ``reordered``, ``duplicate``; ``forged``: without the secret; ``replayed``: of no session
        that is on; ``second``: of another leader, while one is followed; ``bad``: of other joints, or no
        numbers.
        """
        came = {kind: count for kind, count in self._arrivals.counts.items() if kind != "came" and count > 0}
        return {**came, **self._refused}

    def open(self) -> None:
        """Listen.

        Raises:
            DeviceError: ``in_use``, ``not_found``, ``no_permission``.
        """
        self.close()
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_DGRAM)
        try:
            made.setblocking(False)
            made.bind((self._host, self._port))
        except OSError as error:
            made.close()
            kinds = {errno.EADDRINUSE: FaultKind.IN_USE, errno.EACCES: FaultKind.NO_PERMISSION}
            kind = kinds.get(error.errno or 0, FaultKind.NOT_FOUND)
            detail = f"cannot listen there: {error.strerror}"
            raise DeviceError(self.name, kind, self._config.listen, detail) from None
        self._socket = made

    def close(self) -> None:
        """Stop listening; say how it went."""
        if self._socket is None:
            return
        self._socket.close()
        self._socket = None
        self._session = 0
        self._offered.clear()
        if self._arrivals.counts["came"]:
            logger.info("{}: {}", self.name, self.account())

    @property
    def link(self) -> Mapping[str, Any]:
        """``came`` and ``lost``, states; ``round_trip_s`` with ``p50``, ``p99``, of the recent ones."""
        counts, trips = self._arrivals.counts, self._trips
        shares = {"p50": 0.5, "p99": 0.99}
        return {
            "came": counts["came"],
            "lost": max(0, counts["lost"]),
            "round_trip_s": {key: trips.percentile_ns(share) / NS_PER_S for key, share in shares.items()},
        }

    def account(self) -> str:
        """How it goes, in words."""
        link = self.link
        middle, late = (1e3 * seconds for seconds in link["round_trip_s"].values())
        return (
            f"{link['came']} states came, {link['lost']} were lost; "
            f"round trip {middle:.1f} ms, {late:.1f} ms at the 99th percentile"
        )

    def poll(self) -> bool:
        """Wait for datagrams, take the newest state; whether there was one.

        Raises:
            DeviceError: ``gone``: the network is.
        """
        link = self._socket
        if link is None:
            raise DeviceError(self.name, FaultKind.GONE, self._config.listen, "not open")
        select.select([link], [], [], _WAIT_S)
        published = False
        for _ in range(_AT_ONCE):
            try:
                data, peer = link.recvfrom(LARGEST + 1)
            except BlockingIOError:
                break
            except OSError as error:
                raise DeviceError(self.name, FaultKind.GONE, self._config.listen, str(error)) from None
            published |= self._take(link, data, peer)
        self._warn(self._clock.now_ns())
        return published

    def _take(self, link: socket.socket, data: bytes, peer: Peer) -> bool:
        came = unpacked(data, self._secret)
        if came is None:
            self._refused["forged"] += 1
        elif came.kind is Kind.HELLO:
            self._welcome(link, came, peer)
        elif came.kind is Kind.STATE:
            return self._state(link, came, peer)
        return False

    def _welcome(self, link: socket.socket, hello: Datagram, peer: Peer) -> None:
        if why := differs(hello.body, self._joints):
            if not self._refused["bad"]:
                logger.warning("{}: refused: {}", self.name, line(why))
            self._refused["bad"] += 1
            said = line(why).encode(errors="replace")[:1000]
            self._answer(
                link, Datagram(Kind.REFUSED, 0, 0, self._clock.now_ns(), hello.stamp_ns, body=said), peer
            )
            return
        session = secrets.randbits(63) + 1
        self._offered[session] = None
        while len(self._offered) > _OFFERS:
            del self._offered[next(iter(self._offered))]
        self._answer(link, Datagram(Kind.WELCOME, session, 0, self._clock.now_ns(), hello.stamp_ns), peer)

    def _state(self, link: socket.socket, state: Datagram, peer: Peer) -> bool:
        size = 3 * self._joints.joints
        values = np.frombuffer(state.body, "<f8") if len(state.body) == 8 * size else np.empty(0)
        if state.session != self._session and state.session not in self._offered:
            self._refused["replayed"] += 1
            return False
        if values.size != size or not np.isfinite(values).all():
            self._refused["bad"] += 1
            return False
        now = self._clock.now_ns()
        if state.session != self._session:
            if self._session and now - self._heard_ns <= _FOLLOWED_S * NS_PER_S:
                self._second()
                return False
            self._begin(state.session)
        if not self._arrivals.take(state.number):
            return False
        if state.heard_ns:
            self._trips.heard(state.heard_ns, state.since_ns, now)
        self._heard_ns = now
        self._echo(link, state, now, peer)
        position, velocity, load = values.reshape(3, -1)
        self._stamp_ns = max(self._stamp_ns + 1, now - self._trips.least_ns // 2)
        self.states.push(self._stamp_ns, position=position, velocity=velocity, load=load)
        return True

    def _second(self) -> None:
        if not self._refused["second"]:
            logger.warning("{}: another leader sends, too; it counts once this one is silent", self.name)
        self._refused["second"] += 1

    def _begin(self, session: int) -> None:
        self._session = session
        self._offered.clear()
        self._sent = 0
        self._arrivals.begin()
        self._trips = RoundTrips()
        logger.info("{}: the leader is there", self.name)

    def _echo(self, link: socket.socket, state: Datagram, came_ns: int, peer: Peer) -> None:
        self._sent += 1
        now = self._clock.now_ns()
        body = np.array([self._window.share, self._trips.newest_ns / NS_PER_S]).astype("<f8").tobytes()
        echo = Datagram(Kind.ECHO, state.session, self._sent, now, state.stamp_ns, now - came_ns, body)
        self._answer(link, echo, peer)

    def _answer(self, link: socket.socket, answer: Datagram, peer: Peer) -> None:
        with contextlib.suppress(OSError):  # who cannot be reached hears nothing
            link.sendto(answer.packed(self._secret), peer)

    def _warn(self, now_ns: int) -> None:
        """Say it when much is lost or late, and when that is over."""
        if not self._window.look(self._arrivals.counts, now_ns):
            return
        late = self._trips.newest_ns > self._config.warn_delay_s * NS_PER_S
        bad = self._window.share > self._config.warn_loss or late
        if bad:
            logger.warning(
                "{}: {:.0%} of what the leader sends is lost, and a round trip takes {:.0f} ms",
                self.name,
                self._window.share,
                self._trips.newest_ns / 1e6,
            )
        elif self._warned:
            logger.info("{}: the leader is heard well again", self.name)
        self._warned = bad
