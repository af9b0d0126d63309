"""The HTTP client that reads a reply only as far as a chat completion, or a list of models, can go."""

from __future__ import annotations

import contextlib
from typing import Any

from openai import DefaultAsyncHttpxClient

MAX_REPLY_BYTES = 1 << 20
"""Unpacked. 50 MB, read and parsed whole, hold the GIL for so long that the control loop misses ticks."""

_UNPACKED = ("content-encoding", "content-length", "transfer-encoding")


class ReplyTooLongError(ValueError):
    """The rest of a reply was left unread."""

    def __init__(self) -> None:
        super().__init__(f"the reply has more than {MAX_REPLY_BYTES} bytes")


class BoundedClient(DefaultAsyncHttpxClient):
    """Gives up a reply of any status that goes on beyond `MAX_REPLY_BYTES`, and hangs up."""

    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        """As the base class does, with the whole body read.

        Raises:
            ReplyTooLongError: it is too long.
        """
        del stream  # whoever asks here wants it whole
        response = await super().send(request, stream=True, **options)
        body = bytearray()
        async with contextlib.aclosing(response):
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_REPLY_BYTES:
                    raise ReplyTooLongError
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in _UNPACKED]
        return type(response)(response.status_code, headers=headers, content=bytes(body), request=request)
