"""Where the panel's server listens, and where it may look."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from runtime.addresses import is_loopback
from runtime.http_checks import LOCAL_NAMES

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - what a person asks for


@dataclass(frozen=True, slots=True)
class PanelServerOptions:
    """What the server is told at its start.

    Attributes:
        host, port: where it listens; port 0 is any that is free.
        runs: the folder of runs.
        data: folders of data sets, of trainings and evaluations; the first takes new data sets, the last
            new trainings and evaluations.
        config: the configuration that a run is started with unless another is chosen.
        language: of the page: ``en``, ``zh`` or ``auto``.
        run: the folder of the one run that it shows; without it, whichever under `runs` is alive.
        names: what it is called besides, in a network with names of its own.
        token: what every request must bring along where `host` is not this machine alone; else empty.
    """

    host: str = "127.0.0.1"
    port: int = 8470
    runs: Path = Path("runs")
    data: tuple[Path, ...] = (Path("data"), Path("outputs"))
    config: Path = Path("config.toml")
    language: str = "auto"
    run: Path | None = None
    names: tuple[str, ...] = ()
    token: str = field(default="", repr=False)

    def roots(self) -> tuple[Path, ...]:
        """All folders whose files it may show."""
        return (self.runs, *self.data)


def new_token(host: str) -> str:
    """A token for a server at `host`; none is needed where only this machine can connect."""
    return "" if is_loopback(host) else secrets.token_urlsafe(24)


def names_of(host: str, asked: str = "") -> frozenset[str]:
    """What a server that listens at `host` may be called in an address.

    One that listens everywhere is called by the machine's name, or by any address as numbers, if that is what
    was `asked` for: a page of another site comes by a name, which it makes mean this machine.
    """
    if is_loopback(host):
        return LOCAL_NAMES
    bare = host.removeprefix("[").removesuffix("]").lower()
    if bare not in _EVERYWHERE:
        return frozenset({in_address(bare)})
    name = socket.gethostname().lower()
    numbers = {asked} if _is_address(asked) else set()
    return LOCAL_NAMES | {name, f"{name.partition('.')[0]}.local"} | numbers


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        return False


def _own_address() -> str:
    """By which other machines reach this one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def in_address(host: str) -> str:
    """`host` as it stands before a port."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def link_of(options: PanelServerOptions, port: int) -> str:
    """The address for a person, with the token behind ``#``, which browsers send nowhere."""
    host = options.host.removeprefix("[").removesuffix("]")
    host = _own_address() if host in _EVERYWHERE else host
    token = f"#token={options.token}" if options.token else ""
    return f"http://{in_address(host)}:{port}/{token}"
