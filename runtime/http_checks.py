"""What keeps pages of other sites from acting on what listens here, through a person's browser."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.http_server import RefusedError

_NAMES = {"127.0.0.1", "localhost", "[::1]"}


def check_origin(headers: Mapping[str, str], port: int) -> None:
    """Refuse what a page of another site makes a browser send.

    Raises:
        RefusedError: the host is not this machine, or the origin is not the host.
    """
    host = headers.get("host", "")
    if host not in {f"{name}:{port}" for name in _NAMES} | (_NAMES if port == 80 else set()):
        raise RefusedError(403, f"Host: {host!r} is not this server; use 127.0.0.1:{port}")
    origin = headers.get("origin")
    if origin is not None and origin not in {f"http://{name}:{port}" for name in _NAMES}:
        raise RefusedError(403, f"Origin: {origin!r} may not do this")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise RefusedError(403, "a page of another site may not do this")


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
