"""Policies for the campaign: some that wander, one behind a server that dies, and what each can do wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgpack
import numpy as np

from runtime.clock import NS_PER_S, Clock
from runtime.interfaces import Policy, PolicySpec
from runtime.joints import JointLayout
from runtime.messages import Floats, Observation, PolicyAnswer, PolicyStatus

ROWS = 30
_HUGE = 1e305


def wander(dice: np.random.Generator, here: Floats, lower: Floats, upper: Floats, rate_hz: float) -> Floats:
    """Rows ``[ROWS, D]`` from `here` towards anywhere in the range, at any speed up to 4 rad/s."""
    goal = dice.uniform(lower, upper)
    step = dice.uniform(0.2, 4.0) / rate_hz
    count = np.arange(1, ROWS + 1)[:, None]
    return np.asarray(here + np.clip(goal - here, -step * count, step * count))


class Wanderer:
    """Goes anywhere, or stays where it is. Looks at nothing but the joints."""

    def __init__(self, joints: JointLayout, seed: int, *, still: bool) -> None:
        self.spec = PolicySpec(name="still" if still else "wander", chunk_steps=ROWS)
        self._dice = np.random.default_rng(seed)
        self._lower, self._upper = np.array(joints.ranges).T
        self._still = still

    def warm_up(self) -> None:
        """Nothing to load."""

    def reset(self) -> None:
        """Nothing to forget."""

    def infer(self, observation: Observation) -> PolicyAnswer:
        """The next stretch."""
        here = observation.arm.position
        if self._still:
            return PolicyAnswer(np.tile(here, (ROWS, 1)))
        return PolicyAnswer(wander(self._dice, here, self._lower, self._upper, 30.0))

    def statistics(self) -> Mapping[str, int]:
        """Nothing of its own."""
        return {}

    def close(self) -> None:
        """Nothing to release."""


class Unruly:
    """Another policy, of whose answers some are spoilt: `deeds` say which, and how."""

    def __init__(self, policy: Policy, deeds: Sequence[Mapping[str, Any]], clock: Clock) -> None:
        self._policy = policy
        self._deeds = deeds
        self._clock = clock
        self._asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def infer(self, observation: Observation) -> Any:
        """Answer, well or not."""
        self._asked += 1
        answer = self._policy.infer(observation)
        for deed in self._deeds:
            if deed["first"] <= self._asked < deed["last"]:
                return self._spoilt(answer, deed)
        return answer

    def _spoilt(self, answer: PolicyAnswer, deed: Mapping[str, Any]) -> Any:
        kind = deed["kind"]
        if kind in ("slow", "hangs"):
            wait_s = deed["seconds"] if kind == "slow" else 1e5
            self._clock.wait_until_ns(self._clock.now_ns() + round(wait_s * NS_PER_S))
            return answer
        if kind in _STATUSES:
            return dataclasses.replace(answer, status=_STATUSES[kind], why="so it says")
        rows = _ROWS[kind](np.array(answer.rows, float))
        return None if rows is None else dataclasses.replace(answer, rows=rows)


_STATUSES = {"done": PolicyStatus.DONE, "failed": PolicyStatus.FAILED}


def _raises(rows: Floats) -> Any:
    raise ZeroDivisionError("division by zero")


def _exits(rows: Floats) -> Any:
    raise SystemExit("the end of a script")


def _one(value: float) -> Callable[[Floats], Any]:
    def spoil(rows: Floats) -> Floats:
        rows[len(rows) // 2 :, 1] = value
        return rows

    return spoil


def _extremes(rows: Floats) -> Floats:
    return np.asarray(np.where(np.arange(len(rows))[:, None] % 6 < 3, 3.0, -3.0) * np.ones_like(rows))


_ROWS: dict[str, Callable[[Floats], Any]] = {
    "raises": _raises,
    "exits": _exits,
    "nan": _one(np.nan),
    "inf": _one(np.inf),
    "huge": _one(_HUGE),
    "wide": lambda rows: np.hstack((rows, rows[:, :1])),
    "narrow": lambda rows: rows[:, :-1],
    "flat": lambda rows: rows.ravel(),
    "empty": lambda rows: rows[:0],
    "text": lambda rows: np.full(rows.shape, "home"),
    "nothing": lambda rows: None,
    "far": lambda rows: rows + 100.0,
    "extremes": _extremes,
    "low": lambda rows: rows * 0.0 + np.array([0.0, -0.4, 0.4, 1.2, 0.0, 0.0])[: rows.shape[1]],
}
"""What is done to well-formed rows; ``low`` reaches far out and down."""


class DyingServer:
    """openpi's wire, on a thread of its own: anywhere within the range, until it is told to die.

    Its replies number ``first..last`` do what the deeds say. Numbers count from 1.

    Attributes:
        port: where it listens.
    """

    def __init__(
        self, ranges: Sequence[Sequence[float]], deeds: Sequence[Mapping[str, Any]], seed: int
    ) -> None:
        self._lower, self._upper = np.array(ranges).T
        self._deeds = deeds
        self._dice = np.random.default_rng(seed)
        self._replies = 0
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._alive: set[Any] = set()
        self.port = 0
        self.back()

    def back(self) -> None:
        """Listen, on the same port as before."""
        from websockets.sync.server import serve

        if self._server is not None:
            return
        self._server = serve(
            self._talk, "127.0.0.1", self.port, compression=None, max_size=None, ping_interval=None
        )
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def die(self) -> None:
        """Close every connection and stop listening."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        for connection in tuple(self._alive):
            with contextlib.suppress(Exception):
                connection.socket.close()
        assert self._thread is not None  # noqa: S101 - it serves
        self._thread.join(5.0)

    def _talk(self, connection: Any) -> None:
        self._alive.add(connection)
        try:
            connection.send(msgpack.packb({}))
            for message in connection:
                self._replies += 1
                kind = next((d["kind"] for d in self._deeds if d["first"] <= self._replies < d["last"]), "")
                if kind == "close":
                    return
                connection.send(self._answer(kind, msgpack.unpackb(message, raw=True)))
        except Exception:  # noqa: S110 - the client's, or our own, end of it
            pass
        finally:
            self._alive.discard(connection)

    def _answer(self, kind: str, asked: Mapping[bytes, Any]) -> bytes | str:
        if kind == "garbage":
            return b"\xc1" * 64
        if kind == "text":
            return "Traceback (most recent call last): ..."
        state = asked[b"observation/state"]
        here = np.frombuffer(state[b"data"], state[b"dtype"].decode()).astype(float)
        rows = wander(self._dice, here, self._lower, self._upper, 30.0)
        if kind in _ROWS:
            rows = _ROWS[kind](rows)
        return bytes(msgpack.packb({"actions": _array(rows.astype(np.float32))}))


def _array(rows: Floats) -> dict[bytes, Any]:
    return {b"__ndarray__": True, b"data": rows.tobytes(), b"dtype": rows.dtype.str, b"shape": rows.shape}
