"""The HTTP client that reads a reply only as far as a chat completion, or a list of models, can go.

And that sends pictures and the key nowhere but where it was told to: a redirect is followed on the configured
server only, for who answers there may be anybody who was let in between.
"""

from __future__ import annotations

import contextlib
from typing import Any

from openai import DefaultAsyncHttpxClient

MAX_REPLY_BYTES = 1 << 20
"""Unpacked. 50 MB, read and parsed whole, hold the GIL for so long that the control loop misses ticks."""

MAX_REDIRECTS = 3

_UNPACKED = ("content-encoding", "content-length", "transfer-encoding")


class ReplyTooLongError(ValueError):
    """The rest of a reply was left unread."""

    def __init__(self) -> None:
        super().__init__(f"the reply has more than {MAX_REPLY_BYTES} bytes")


class RedirectedError(ValueError):
    """The server names another one, to which nothing is sent.

    Attributes:
        location: what it names.
    """

    def __init__(self, location: str) -> None:
        super().__init__(
            f"the server redirects to {location}; nothing is sent to another server than planner.base_url"
        )
        self.location = location


class BoundedClient(DefaultAsyncHttpxClient):
    """Gives up a reply of any status that goes on beyond `MAX_REPLY_BYTES`, and hangs up."""

    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        """As the base class does, with the whole body read.

        Raises:
            ReplyTooLongError: it is too long.
            RedirectedError: the server redirects elsewhere, or in circles.
        """
        del stream  # whoever asks here wants it whole
        options["follow_redirects"] = False
        for _ in range(MAX_REDIRECTS + 1):
            response = await super().send(request, stream=True, **options)
            if (following := response.next_request) is None:
                return await _whole(response, request)
            await response.aclose()
            if _origin(following.url) != _origin(request.url):
                raise RedirectedError(str(following.url))
            request = following
        raise RedirectedError(f"{request.url} in circles")


def _origin(url: Any) -> tuple[str, str, int | None]:
    port = url.port if url.port is not None else {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host, port


async def _whole(response: Any, request: Any) -> Any:
    body = bytearray()
    async with contextlib.aclosing(response):
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MAX_REPLY_BYTES:
                raise ReplyTooLongError
    headers = [(name, value) for name, value in response.headers.multi_items() if name not in _UNPACKED]
    return type(response)(response.status_code, headers=headers, content=bytes(body), request=request)
