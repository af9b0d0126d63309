"""What can go wrong between the robot and its policy: one line, one count, and on again."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.config.serve_options import ServeOptions
from policies.remote.client import RemotePolicy
from runtime.interfaces import PolicyError
from runtime.stepped import SteppedClock
from tests.remote.proxy import Relay
from tests.remote.support import (
    GUARD_S,
    OPTIONS,
    PROTOCOLS,
    BatchedEcho,
    EchoPolicy,
    both_ends,
    connected,
    expected,
    make_client,
    observation,
    serving,
)

every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
ROOT = Path(__file__).resolve().parents[2]
SHORT_S = 0.3
CLOSE = 2e-5


class ServerProcess:
    """A server that can be killed and frozen."""

    def __init__(self, protocol: str, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.remote.serve_process", protocol, str(port)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.port = int(re.sub(r".*:", "", self.line()))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())

    def line(self) -> str:
        return self._lines.get(timeout=GUARD_S)

    def say(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        return self._process.wait(GUARD_S)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(GUARD_S)
        self._reader.join(GUARD_S)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()


@contextlib.contextmanager
def process(protocol: str, port: int = 0) -> Iterator[ServerProcess]:
    server = ServerProcess(protocol, port)
    try:
        yield server
    finally:
        server.close()


class Asking:
    """An `infer` on a thread of its own."""

    def __init__(self, remote: RemotePolicy, step: int) -> None:
        self.error: PolicyError | None = None
        self.rows: Any = None
        self._thread = threading.Thread(target=self._run, args=(remote, step))
        self._thread.start()

    def _run(self, remote: RemotePolicy, step: int) -> None:
        try:
            self.rows = remote.infer(observation(step)).rows
        except PolicyError as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(GUARD_S)
        assert not self._thread.is_alive()


def one_line(error: PolicyError | None) -> str:
    assert error is not None
    assert "\n" not in str(error)
    return str(error)


@every_protocol
def test_a_server_killed_in_the_middle_and_started_again(protocol: str) -> None:
    with process(protocol) as server, connected(protocol, server.port) as remote:
        remote.infer(observation(1))
        assert server.line() == "asked"
        asking = Asking(remote, 666)
        assert server.line() == "asked"
        server.signal(signal.SIGKILL)
        asking.join()
        assert str(server.port) in one_line(asking.error)
        with pytest.raises(PolicyError):  # nobody there
            make_client_and_warm_up(protocol, server.port)
        with process(protocol, server.port):
            made = observation(2)
            assert np.abs(infer_again(remote, made) - expected(made)).max() < CLOSE
        assert remote.statistics()["lost"] >= 1
        assert remote.statistics()["reconnects"] == 1


def make_client_and_warm_up(protocol: str, port: int) -> None:
    with connected(protocol, port, connect_timeout_s=SHORT_S) as remote:
        remote.warm_up()


def infer_again(remote: RemotePolicy, made: Any, times: int = 50) -> Any:
    """As the runtime does: the horizon is dry, so it asks again."""
    for _ in range(times):
        with contextlib.suppress(PolicyError):
            return remote.infer(made).rows
    return remote.infer(made).rows


@every_protocol
def test_a_frozen_server_times_out_and_its_late_reply_is_dropped(protocol: str) -> None:
    with process(protocol) as server, connected(protocol, server.port) as remote:
        remote.infer(observation(1))
        server.signal(signal.SIGSTOP)
        remote.options = remote.options.model_copy(update={"request_timeout_s": SHORT_S})
        with pytest.raises(PolicyError, match=r"no answer within 0.3 s|Deadline|deadline"):
            remote.infer(observation(2))
        assert remote.statistics()["timeout"] == 1
        server.signal(signal.SIGCONT)
        remote.options = remote.options.model_copy(update={"request_timeout_s": GUARD_S})
        made = observation(3, seed=3)
        assert np.abs(remote.infer(made).rows - expected(made)).max() < CLOSE
        assert remote.statistics()["connects"] == 1
        if protocol != "lerobot":  # it asks for actions only once it has sent an observation
            assert remote.statistics()["late"] == 1


@every_protocol
def test_a_network_that_is_cut_and_comes_back(protocol: str) -> None:
    with serving(EchoPolicy(), ServeOptions(protocol=protocol)) as server:
        relay = Relay(server.port)
        try:
            with connected(protocol, relay.port) as remote:
                remote.infer(observation(1))
                relay.cut()
                remote.options = remote.options.model_copy(update={"request_timeout_s": SHORT_S})
                for step in (2, 3):
                    with pytest.raises(PolicyError):
                        remote.infer(observation(step))
                relay.join()
                remote.options = remote.options.model_copy(update={"request_timeout_s": GUARD_S})
                made = observation(4, seed=4)
                assert np.abs(remote.infer(made).rows - expected(made)).max() < CLOSE
                relay.reset()
                made = observation(5, seed=5)
                assert np.abs(infer_again(remote, made) - expected(made)).max() < CLOSE
        finally:
            relay.close()


@every_protocol
def test_a_wrong_token_gets_nothing(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = "DEXRUN_TEST_RIGHT", "DEXRUN_TEST_WRONG"
    monkeypatch.setenv(wrong, "token-2")
    headers = protocol in ("lerobot", "openpi")  # which take ASCII
    monkeypatch.setenv(right, "token-1" if headers else "täken-1")
    policy = EchoPolicy()
    with serving(policy, ServeOptions(protocol=protocol, token_env=right)) as server:
        for variable in (wrong, ""):
            refused = pytest.raises(PolicyError, match=r"(?i)token|401")
            with connected(protocol, server.port, token_env=variable) as remote, refused:
                remote.infer(observation())
        assert not policy.seen
        with connected(protocol, server.port, token_env=right) as remote:
            made = observation()
            assert np.abs(remote.infer(made).rows - expected(made)).max() < CLOSE


def test_a_token_that_is_not_in_the_environment_is_said_first(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = "DEXRUN_TEST_ABSENT"
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(PolicyError, match=f"{variable} is not set"):
        make_client("gr00t", 5555, token_env=variable)


@pytest.mark.parametrize(("protocol", "spoken"), list(itertools.permutations(PROTOCOLS, 2)))
def test_a_server_of_another_protocol_is_refused(protocol: str, spoken: str) -> None:
    with serving(EchoPolicy(), ServeOptions(protocol=spoken)) as server:
        with connected(protocol, server.port, connect_timeout_s=SHORT_S) as remote:
            for _ in range(2):
                with pytest.raises(PolicyError) as caught:
                    remote.warm_up()
                one_line(caught.value)
        with connected(spoken, server.port) as remote:  # and the server does not mind
            remote.infer(observation())


@every_protocol
def test_a_server_that_gives_another_number_of_joints(protocol: str) -> None:
    keys = OPTIONS[protocol]().keys
    fewer = dict.fromkeys(keys.action, ("shoulder_pan", "shoulder_lift"))
    if len(fewer) > 1:
        fewer = {"single_arm": ("shoulder_pan", "shoulder_lift"), "gripper": ("gripper",)}
    serve = {"keys": keys.model_copy(update={"action": fewer})}
    with both_ends(protocol, EchoPolicy(), serve) as remote:
        with pytest.raises(PolicyError, match=r"has shape \[50, 2\]; expected \[steps, [56]\]"):
            remote.infer(observation())
        assert remote.statistics()["wrong_shape"] == 1


@every_protocol
def test_closing_from_another_thread_ends_the_wait(protocol: str) -> None:
    policy = BatchedEcho()
    with serving(policy, ServeOptions(protocol=protocol)) as server:
        remote = make_client(protocol, server.port)
        asking = Asking(remote, 5)
        assert policy.entered.acquire(timeout=GUARD_S)
        remote.close()
        asking.join()
        one_line(asking.error)
        policy.gate.set()
        remote.close()
        with pytest.raises(PolicyError, match="closed"):
            remote.infer(observation())


@every_protocol
def test_backoff_follows_the_clock_it_is_given(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    clock = SteppedClock()
    options = {"backoff_s": 1.0, "backoff_max_s": 3.0, "connect_timeout_s": 0.1}
    with connected(protocol, port, clock, **options) as remote:
        waits = []
        for _ in range(4):
            with pytest.raises(PolicyError):
                remote.warm_up()
            with pytest.raises(PolicyError, match="next attempt in") as caught:
                remote.warm_up()
            found = re.search(r"in ([\d.]+) s", str(caught.value))
            assert found
            waits.append(float(found.group(1)))
            clock.wait_until_ns(clock.now_ns() + round(waits[-1] * 1e9))
        assert waits == [1.0, 2.0, 3.0, 3.0]
        assert remote.statistics() == {"connect": 4, "waiting": 4}


@every_protocol
def test_sigterm_answers_what_is_in_flight(protocol: str) -> None:
    with process(protocol) as server, connected(protocol, server.port) as remote:
        asking = Asking(remote, 777)
        assert server.line() == "asked"
        server.signal(signal.SIGTERM)
        server.say()
        asking.join()
        assert asking.error is None
        made = observation(777)
        assert np.abs(asking.rows - expected(made)).max() < CLOSE
        assert server.wait() == 0


@every_protocol
def test_one_clients_mistakes_are_not_the_others(protocol: str) -> None:
    with (
        serving(EchoPolicy(), ServeOptions(protocol=protocol)) as server,
        connected(protocol, server.port) as good,
        connected(protocol, server.port) as bad,
    ):
        for step in range(3):
            made = observation(step, seed=step)
            broken = dataclasses.replace(made.frames["head"], color=np.zeros((4, 4, 4), np.uint8))
            with pytest.raises(PolicyError):
                bad.infer(dataclasses.replace(made, frames={**made.frames, "head": broken}))
            assert np.abs(good.infer(made).rows - expected(made)).max() < CLOSE
        assert good.statistics()["connects"] == 1


@every_protocol
def test_a_server_that_was_restarted_while_nobody_asked(protocol: str) -> None:
    with process(protocol) as server, connected(protocol, server.port) as remote:
        remote.infer(observation(1))
        server.signal(signal.SIGKILL)
        server.wait()
        with process(protocol, server.port):
            made = observation(2)
            assert np.abs(infer_again(remote, made) - expected(made)).max() < CLOSE
            assert remote.statistics().get("timeout", 0) == 0
