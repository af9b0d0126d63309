"""What is no host is refused by name, an unknown one is said at once, loopback needs no proxy."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dexrun.config.serve_options import ServeOptions
from runtime.interfaces import PolicyError
from tests.remote.support import OPTIONS, PROTOCOLS, EchoPolicy, connected, expected, observation, serving


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("wss://gpu", "has the scheme 'wss'; give the name alone, as 'gpu'; TLS is not spoken here"),
        ("https://gpu:8000/x", "has the scheme 'https'; give the name alone, as 'gpu'; TLS"),
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
