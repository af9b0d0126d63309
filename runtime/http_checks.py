"""What keeps pages of other sites from acting on what listens here, through a person's browser."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

from runtime.http_server import RefusedError

LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""What this machine is called in a browser on it."""


def check_host(headers: Mapping[str, str], port: int, names: Collection[str] = LOCAL_NAMES) -> None:
    """Refuse a request that was sent to somebody else's name (DNS rebinding).

    `names` are this server's, as they stand in an address.

    Raises:
        RefusedError: the host is none of `names`.
    """
    host = headers.get("host", "")
    if host not in {f"{name}:{port}" for name in names} | (set(names) if port == 80 else set()):
        here = "127.0.0.1" if "127.0.0.1" in names else min(names)
        raise RefusedError(403, f"Host: {host!r} is not this server; use {here}:{port}")


def check_origin(headers: Mapping[str, str], port: int, names: Collection[str] = LOCAL_NAMES) -> None:
    """Refuse what a page of another site makes a browser send; `names` as for `check_host`.

    Raises:
        RefusedError: the host is not this server, or the origin is not the host.
    """
    check_host(headers, port, names)
    origin = headers.get("origin")
    allowed = {f"http://{name}:{port}" for name in names} | (
        {f"http://{name}" for name in names} if port == 80 else set()
    )
    if origin is not None and origin not in allowed:
        raise RefusedError(403, f"Origin: {origin!r} may not do this")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise RefusedError(403, "a page of another site may not do this")


def check_token(said: str, token: str) -> None:
    """Refuse a wrong token; how wrong it is cannot be told from the time that this takes.

    Raises:
        RefusedError: it is not `token`.
    """
    if not secrets.compare_digest(said.encode(errors="replace"), token.encode()):
        raise RefusedError(403, "the token is missing or wrong; use the address that was printed")


def check_body(headers: Mapping[str, str]) -> None:
    """Refuse a body that a form of another site could send.

    Raises:
        RefusedError: it is chunked, or not JSON by its type.
    """
    if "transfer-encoding" in headers:
        raise RefusedError(400, "a body needs a Content-Length")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if headers.get("content-length", "0") != "0" and kind != "application/json":
        raise RefusedError(415, f"Content-Type: {kind!r}; a body is application/json")
