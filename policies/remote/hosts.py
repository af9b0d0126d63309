"""What a host may look like, and whether there is one of that name."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from policies.remote.link import LinkError
from runtime.masking import masked

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")


def plain_host(host: str) -> str:
    """`host` without brackets, if it is a name or an address and nothing else.

    Raises:
        ValueError: it has a scheme, a port, a path or anything else in it; one line.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return str(bare) if ipaddress.ip_address(bare.partition("%")[0]) else bare
    except ValueError:
        pass
    scheme, found, _ = host.partition("://")
    if found:
        tls = "; TLS is not spoken here: put a tunnel before the server (ssh -L, stunnel)"
        name = _named_in(host)
        alone = f", as {name!r}" if name else ""
        more = tls if scheme.lower() in ("wss", "https", "grpcs") else ""
        raise ValueError(f"{masked(host)!r} has the scheme {scheme!r}; give the name alone{alone}{more}")
    if "/" in host:
        raise ValueError(
            f"{host!r} has a path; none is taken: give the name alone, as {host.split('/')[0]!r}"
        )
    if re.fullmatch(r"([^:]+|\[.*\]):\d+", host):
        raise ValueError(f"{host!r} has a port; give it as port, and host as {host.rpartition(':')[0]!r}")
    numeric = re.fullmatch(r"[0-9.]+", host) and host.count(".") == 3  # an address by its look, and none
    if not _NAME.fullmatch(host) or ".." in host or len(host) > 253 or numeric:
        raise ValueError(f"{host!r} is neither a name nor an address of a host")
    return host


def _named_in(url: str) -> str:
    """The host of `url`; empty where it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def resolved(host: str, port: int) -> str:
    """The address of `host` as numbers; of version 6, where it has no other.

    Raises:
        LinkError: kind ``connect``: there is no such host.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise LinkError("connect", f"host {host!r} is not known: {why}") from None
    of_version_4 = (address[0] for family, *_, address in found if family is socket.AF_INET)
    return str(next(of_version_4, found[0][4][0]))


def address_to_bind(host: str, port: int) -> str:
    """What `host` is to a server here, as numbers; ``localhost`` is this machine alone, whatever a file says.

    Raises:
        OSError: there is no such host.
    """
    if host.lower() == "localhost":
        return "127.0.0.1"
    try:
        return resolved(host, port)
    except LinkError as error:
        raise OSError(str(error)) from None


def in_url(address: str) -> str:
    """`address` as it is written before a port."""
    return f"[{address}]" if ":" in address else address
