"""`websockets`' stream reader without the copy of a message that is all there is.

The library slices a frame's payload out of its buffer. An observation is 1.8 MB and nothing follows it, for
its sender waits for the answer: then the buffer itself is handed over. (Keeping the pieces that arrive and
joining them once is slower: the joining then waits for the last one.)
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

_LARGE = 1 << 16


class WholeMessageReader(StreamReader):
    """Reads what `StreamReader` reads."""

    def read_exact(self, n: int) -> Generator[None, None, bytearray]:
        """See `StreamReader.read_exact`."""
        if n >= _LARGE:
            while len(self.buffer) < n and not self.eof:
                yield
            if len(self.buffer) == n:
                whole, self.buffer = self.buffer, bytearray()
                return whole
        return (yield from super().read_exact(n))


class Connection(ServerConnection):
    """A connection that reads with a `WholeMessageReader`."""

    def __init__(self, protocol: ServerProtocol, *args: Any, **options: Any) -> None:
        super().__init__(protocol, *args, **options)
        # The state machine began to read when it was made: it begins again, with the other reader.
        protocol.reader = WholeMessageReader()
        protocol.parser = protocol.parse()
        next(protocol.parser)
