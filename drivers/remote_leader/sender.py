"""The leader's end: its joints to another machine, and what that says of them."""

from __future__ import annotations

import socket

import numpy as np

from drivers.remote_leader.link import Arrivals, RoundTrips
from drivers.remote_leader.wire import LARGEST, Datagram, Kind, described, unpacked
from runtime.clock import NS_PER_S, Clock
from runtime.joints import JointLayout
from runtime.ring import Sample

_HELLO_S = 0.5
_SILENT_S = 2.0
"""So long without an echo, and the other side is greeted anew: it may have been started again."""

_AT_ONCE = 64
"""Datagrams that are looked at in one turn."""


class RefusedLeaderError(Exception):
    """The follower does not take this leader. One line."""


class LeaderSender:
    """Greets the follower's machine until it answers, and then sends every state.

    Raises:
        OSError: the address cannot be reached at all.

    Attributes:
        lost: the share that the other side says never came. trips: how long a round trip is.
    """

    def __init__(self, address: tuple[str, int], secret: bytes, joints: JointLayout, clock: Clock) -> None:
        family, kind, protocol, _, target = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
        self._socket = socket.socket(family, kind, protocol)
        self._socket.setblocking(False)
        self._socket.connect(target)
        self._secret = secret
        self._clock = clock
        self._hello = described(joints)
        self._session = 0
        self._number = 0
        self._greeted_ns = self._heard_ns = -1
        self._theirs = (0, 0)
        self._echoes = Arrivals()
        self.trips = RoundTrips()
        self.lost = 0.0

    @property
    def agreed(self) -> bool:
        """Whether the other side answers."""
        return self._session != 0

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def turn(self, state: Sample | None) -> None:
        """Hear what has come, greet where that is due, and send `state` if there is one.

        Raises:
            RefusedLeaderError: the other side says why it does not want it.
        """
        self._listen()
        now = self._clock.now_ns()
        if self._session and now - self._heard_ns > _SILENT_S * NS_PER_S:
            self._session = 0
        if not self._session:
            if self._greeted_ns < 0 or now - self._greeted_ns > _HELLO_S * NS_PER_S:
                self._greeted_ns = now
                self._send(Datagram(Kind.HELLO, 0, 0, now, body=self._hello))
        elif state is not None:
            self._number += 1
            stamp, came = self._theirs
            body = np.concatenate([state[name] for name in ("position", "velocity", "load")])
            since = now - came if stamp else 0
            data = body.astype("<f8").tobytes()
            self._send(Datagram(Kind.STATE, self._session, self._number, now, stamp, since, data))

    def _send(self, datagram: Datagram) -> None:
        try:
            self._socket.send(datagram.packed(self._secret))
        except OSError:
            return  # nobody listens there yet, or the network is away: said by silence

    def _listen(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                data = self._socket.recv(LARGEST + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # that nobody listened to what was sent before
            came = unpacked(data, self._secret)
            if came is not None:
                self._take(came, self._clock.now_ns())

    def _take(self, came: Datagram, now_ns: int) -> None:
        # Without the stamp of the newest hello, it is an answer to somebody else's, or an old one's.
        asked = not self._session and came.heard_ns == self._greeted_ns
        if came.kind is Kind.WELCOME and asked:
            self._session, self._number, self._heard_ns = came.session, 0, now_ns
            self._theirs = (came.stamp_ns, now_ns)
            self._echoes.begin()
        elif came.kind is Kind.REFUSED and asked:
            raise RefusedLeaderError(came.body.decode(errors="replace"))
        elif came.kind is Kind.ECHO and came.session == self._session and self._echoes.take(came.number):
            self._heard_ns = now_ns
            self._theirs = (came.stamp_ns, now_ns)
            self.trips.heard(came.heard_ns, came.since_ns, now_ns)
            if len(came.body) == 16:
                self.lost = float(np.frombuffer(came.body, "<f8")[0])
