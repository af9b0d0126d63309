"""The tutorial's own policy, as its page shows it, understands what our client sends and is understood."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import websockets.sync.server

from policies.remote.openpi import codec
from tests.test_command_lines import blocks

STEPS = 45


class Connection:
    """What `websockets` hands over: one observation after the other comes in, what is sent is kept."""

    def __init__(self, states: list[np.ndarray[Any, Any]]) -> None:
        self._states = states
        self.sent: list[Any] = []

    def send(self, message: bytes) -> None:
        self.sent.append(codec.decode(message))

    def __iter__(self) -> Iterator[bytes]:
        for state in self._states:
            image = np.zeros((4, 4, 3), np.uint8)
            values = {"observation/state": state, "observation/image": image, "prompt": "put it away"}
            yield b"".join(codec.encode(values))


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Connection], None]:
    """The program's handler, over an episode whose joints all read the row's number."""
    rows = np.repeat(np.arange(STEPS, dtype=float)[:, None], 6, axis=1)
    with h5py.File(tmp_path / "episode_0.hdf5", "w") as file:
        file["observations/qpos"], file["action"] = rows, rows + 0.5
    handlers: list[Callable[[Connection], None]] = []

    @contextlib.contextmanager
    def serve(handler: Callable[[Connection], None], *_: Any, **__: Any) -> Iterator[Any]:
        handlers.append(handler)
        yield type("Server", (), {"serve_forever": lambda self: None})()

    monkeypatch.setattr(websockets.sync.server, "serve", serve)
    monkeypatch.setattr(sys, "argv", ["own_policy.py", str(tmp_path / "episode_0.hdf5")])
    (program,) = blocks("docs/tutorial.md", "python")
    exec(compile(program, "own_policy.py", "exec"), {"__name__": "__main__"})  # noqa: S102 - our own page's
    return handlers[0]


def test_the_nearest_row_is_followed_by_what_came_next(answer: Callable[[Connection], None]) -> None:
    connection = Connection([np.full(6, value, np.float32) for value in (0.0, 9.8, 30.2)])
    answer(connection)
    metadata, *replies = connection.sent
    assert metadata == {}
    chunks = [np.array(reply["actions"]) for reply in replies]
    assert [chunk.shape for chunk in chunks] == [(30, 6)] * 3
    assert [chunk[0, 0] for chunk in chunks] == [0.5, 10.5, 30.5]
    assert chunks[2][-1, 0] == STEPS - 0.5  # the end of the episode is held
