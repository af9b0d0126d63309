"""Whether an address to bind can be reached from other machines."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to `host`: ``localhost`` or a loopback address, as numbers.

    Any other name is what a resolver makes of it (``127.evil.example``, ``localhost.x``).
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
