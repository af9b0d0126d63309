"""Closes one hostile peer's connection under a library that cannot.

Neither libzmq nor gRPC lets a server close one peer of many. Both notice the end of a stream, so the socket
is shut down underneath them, a moment after the answer that says why. Until then a copy of its descriptor is
kept. The number may be another connection's by the time it is copied, so the peer's address must agree. What
remains: the hostile peer has gone, and another from the same address has got its number in those few
milliseconds. Then that one is closed instead, and has to connect again.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from urllib.parse import unquote

from policies.encoding.limits import WireError
from runtime.clock import NS_PER_S, Clock

HANG_UP_S = 0.1
"""How long after its answer a hostile peer's connection is closed."""


def is_hostile(error: Exception) -> bool:
    """Whether only an attacker sends this: something to call, an array of objects."""
    return isinstance(error, WireError) and error.kind == "forbidden"


def by_descriptor(number: int, address: str) -> socket.socket | None:
    """A second handle on the connection from `address` with this descriptor; ``None`` if it is not that."""
    found = copy_of(number)
    peer = _peer(found) if found is not None else None
    if found is not None and (peer is None or peer[0] != _plain(address)):
        found.close()
        return None
    return found


def copy_of(number: int) -> socket.socket | None:
    """A second handle on the socket with this descriptor; ``None`` if it is none."""
    try:
        copy = os.dup(number)
    except OSError:
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None


def by_peer(peer: str) -> socket.socket | None:
    """The same by gRPC's name of the peer (``ipv4:127.0.0.1:4242``); ``None`` where there is no ``/proc``."""
    wanted = peer_of(peer)
    with contextlib.suppress(OSError):
        for entry in Path("/proc/self/fd").iterdir():
            found = copy_of(int(entry.name)) if _is_socket(entry) else None
            if found is None:
                continue
            if _peer(found) == wanted:
                return found
            found.close()
    return None


def peers() -> frozenset[tuple[str, str]] | None:
    """Address and port of everybody that this process is connected with; ``None`` where nothing tells."""
    try:
        entries = list(Path("/proc/self/fd").iterdir())
    except OSError:
        return None
    found: set[tuple[str, str]] = set()
    for entry in entries:
        if not _is_socket(entry) or (copy := copy_of(int(entry.name))) is None:
            continue
        with copy:
            if (peer := _peer(copy)) is not None:
                found.add(peer)
    return frozenset(found)


def peer_of(name: str) -> tuple[str, str]:
    """Address and port in gRPC's name of a peer."""
    host, _, port = unquote(name).partition(":")[2].rpartition(":")
    return _plain(host.strip("[]")), port


def _peer(connection: socket.socket) -> tuple[str, str] | None:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        name = connection.getpeername()
    except OSError:  # it listens, or is gone
        return None
    return _plain(name[0]), str(name[1])


def _plain(address: str) -> str:
    """An IPv4 address as such, also where an IPv6 socket was bound."""
    return address.removeprefix("::ffff:")


def _is_socket(entry: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(entry).startswith("socket:")
    return False


async def hang_up(connection: socket.socket | None, clock: Clock) -> None:
    """Close `connection` once its peer has had time to read the answer; at once when cancelled."""
    if connection is None:
        return
    try:
        await clock.sleep_until_ns(clock.now_ns() + round(HANG_UP_S * NS_PER_S))
    finally:
        with connection, contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
