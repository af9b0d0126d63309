"""The datagrams between a leader's machine and its follower's: one layout, closed by a tag over all of it.

Little-endian: ``magic, version, kind, session, number, stamp, heard, since``, then by its kind:

- ``HELLO`` (to the follower): JSON with the joints' names, units and ranges; `session` is 0.
- ``WELCOME`` (from it): nothing; `session` is what every state is to say from now on.
- ``REFUSED`` (from it): why, as text; it has the stamp of the hello, as ``WELCOME`` has.
- ``STATE`` (to it): ``3 D`` float64, positions, velocities and loads.
- ``ECHO`` (from it): ``lost, late`` float64: the share of the last seconds' states that never came, and the
  round trip in seconds.

`stamp` is the sender's own clock and goes back as `heard` with how long it lay there (`since`): a machine's
stamps are compared with its own alone. The tag is HMAC-SHA256 with the secret that both sides have.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from dataclasses import dataclass
from enum import IntEnum

from runtime.joints import JointLayout

MAGIC, VERSION = b"DXLD", 1
HEADER = struct.Struct("<4sBBQQqqq")
TAG_BYTES = 32
LARGEST = 8192
_RANGE_DIGITS = 4


class Kind(IntEnum):
    """What a datagram is."""

    HELLO = 1
    WELCOME = 2
    REFUSED = 3
    STATE = 4
    ECHO = 5


@dataclass(frozen=True, slots=True)
class Datagram:
    """One of them.

    Attributes:
        session: which agreement it belongs to. number: counts a sender's datagrams of a session, from 1.
        stamp_ns: when it was sent, by its sender's clock. heard_ns: the newest stamp of the other side that
            its sender has; 0: none. since_ns: how long before it was sent that one had come.
    """

    kind: Kind
    session: int
    number: int
    stamp_ns: int
    heard_ns: int = 0
    since_ns: int = 0
    body: bytes = b""

    def packed(self, secret: bytes) -> bytes:
        """As it goes over the wire."""
        head = HEADER.pack(
            MAGIC,
            VERSION,
            self.kind,
            self.session,
            self.number,
            self.stamp_ns,
            self.heard_ns,
            self.since_ns,
        )
        return head + self.body + hmac.digest(secret, head + self.body, hashlib.sha256)


def unpacked(data: bytes, secret: bytes) -> Datagram | None:
    """What came, or ``None``: it is no datagram of this kind, or not from somebody who has the secret."""
    if len(data) < HEADER.size + TAG_BYTES or len(data) > LARGEST:
        return None
    signed, tag = data[:-TAG_BYTES], data[-TAG_BYTES:]
    if not hmac.compare_digest(hmac.digest(secret, signed, hashlib.sha256), tag):
        return None
    magic, version, kind, *numbers = HEADER.unpack_from(signed)
    if magic != MAGIC or version != VERSION or kind not in list(Kind):
        return None
    session, number, stamp_ns, heard_ns, since_ns = numbers
    body = signed[HEADER.size :]
    return Datagram(Kind(kind), session, number, stamp_ns, heard_ns, since_ns, body)


def described(joints: JointLayout) -> bytes:
    """A hello's body: what must be the same on both sides."""
    about = {
        "joints": list(joints.names),
        "units": joints.units,
        "ranges": [[round(end, _RANGE_DIGITS) for end in pair] for pair in joints.ranges.tolist()],
    }
    return json.dumps(about).encode()


def differs(body: bytes, joints: JointLayout) -> str:
    """Why the joints of a hello are not these; empty if they are."""
    try:
        theirs = json.loads(body)
        names, units, ranges = theirs["joints"], theirs["units"], theirs["ranges"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "the hello is not one of dexrun's"
    ours = json.loads(described(joints))
    if names != ours["joints"] or units != ours["units"]:
        there, here = f"{names} in {units}", f"{ours['joints']} in {ours['units']}"
        return f"the leader's joints are {there}, the follower's {here}"
    if ranges != ours["ranges"]:
        return "the leader is another model of arm than the follower: the ranges of its joints are others"
    return ""
