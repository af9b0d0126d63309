"""What is no host is refused by name, an unknown one is said at once, loopback needs no proxy."""

from __future__ import annotations

import socket
import threading
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dexrun.config.serve_options import ServeOptions
from dexrun.serve.server import local_server
from runtime.interfaces import PolicyError
from tests.remote.support import (
    OPTIONS,
    PROTOCOLS,
    ROBOT,
    EchoPolicy,
    Running,
    connected,
    expected,
    observation,
    serving,
)


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("wss://gpu", "has the scheme 'wss'; give the name alone, as 'gpu'; TLS is not spoken here"),
        ("https://gpu:8000/x", "has the scheme 'https'; give the name alone, as 'gpu'; TLS"),
        ("WSS://gpu", "has the scheme 'WSS'; give the name alone, as 'gpu'; TLS is not spoken here"),
        ("wss://me:word@gpu/x", "'wss://***@gpu/x' has the scheme 'wss'; give the name alone, as 'gpu'; TLS"),
        ("ws://[::1]:8000/x", "has the scheme 'ws'; give the name alone, as '::1'"),
        ("tcp://gpu:5555", "has the scheme 'tcp'; give the name alone, as 'gpu'"),
        ("gpu:5555", "has a port; give it as port, and host as 'gpu'"),
        ("gpu/policy", "has a path"),
        ("a b", "neither a name nor an address"),
        ("user@gpu", "neither a name nor an address"),
        ("256.1.1.1", "neither a name nor an address"),
        ("gpu..lab", "neither a name nor an address"),
        ("ipc:///tmp/gpu", "has the scheme 'ipc'; give the name alone"),
        ("fe80:::1", "neither a name nor an address"),
    ],
)
def test_what_is_no_host_is_refused_by_name(host: str, says: str) -> None:
    for made in OPTIONS.values():
        with pytest.raises(ValidationError) as caught:
            made(host=host)
        assert says in str(caught.value)


def test_names_and_addresses_are_taken() -> None:
    for given, host in (
        ("gpu-server.lab", "gpu-server.lab"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ):
        assert OPTIONS["gr00t"](host=given).host == host


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that nobody has, without asking the network for it."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **more: Any) -> Any:
        if host == "no-such-host":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("ws://0.0.0.0", "has the scheme 'ws'"),
        ("127.0.0.1:5555", "has a port"),
        ("localhost/x", "has a path"),
        ("*", "0.0.0.0 or :: is all of them"),
        ("", "0.0.0.0 or :: is all of them"),
    ],
)
def test_a_server_binds_a_host_and_nothing_else(host: str, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ServeOptions(host=host, insecure=True)
    assert says in str(caught.value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("host", ["LOCALHOST", "[::1]", "robot-six"])
def test_a_server_binds_names_and_addresses_of_both_versions(protocol: str, host: str, six: None) -> None:
    made = observation()
    with (
        serving(EchoPolicy(), ServeOptions(protocol=protocol, host=host, insecure=True)) as server,
        connected(protocol, server.port, host="127.0.0.1" if host == "LOCALHOST" else "::1") as remote,
    ):
        assert np.abs(remote.infer(made).rows - expected(made)).max() < 2e-5


@pytest.mark.usefixtures("resolver")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_name_of_no_host_cannot_be_bound(protocol: str) -> None:
    options = ServeOptions(protocol=protocol, host="no-such-host", insecure=True)
    with pytest.raises(OSError, match="host 'no-such-host' is not known"):
        Running(local_server(EchoPolicy(), options, ROBOT)).start()
    # gRPC's own thread would live on for as long as somebody looks at the error
    assert not [thread.name for thread in threading.enumerate() if "_poll_wrapper" in thread.name]


@pytest.fixture
def six(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that has an address of version 6 alone, in Python's resolver and in no other."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **more: Any) -> Any:
        return real("::1" if host == "robot-six" else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("protocol", ["gr00t", "act", "openpi"])
def test_a_name_with_an_address_of_version_6_alone_is_reached(protocol: str, six: None) -> None:
    made = observation()
    with (
        serving(EchoPolicy(), ServeOptions(protocol=protocol, host="::1")) as server,
        connected(protocol, server.port, host="robot-six") as remote,
    ):
        assert np.abs(remote.infer(made).rows - expected(made)).max() < 2e-5


@pytest.mark.usefixtures("resolver")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_unknown_host_is_said_to_be_unknown(protocol: str) -> None:
    with (
        connected(protocol, 1, host="no-such-host", connect_timeout_s=30.0) as remote,
        pytest.raises(PolicyError, match="host 'no-such-host' is not known: Name or service not known"),
    ):
        remote.warm_up()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = observation()
    with (
        serving(EchoPolicy(), ServeOptions(protocol=protocol)) as server,
        connected(protocol, server.port, connect_timeout_s=10.0) as remote,
    ):
        assert np.abs(remote.infer(made).rows - expected(made)).max() < 2e-5
