"""What can be set about a leader on another machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from runtime.addresses import is_loopback
from runtime.masking import secret_of
from runtime.parts import LeaderTable


def split_address(text: str) -> tuple[str, int]:
    """``HOST:PORT``, an IPv6 address in brackets.

    Raises:
        ValueError: it is none.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 <= int(port) <= 65535 or (":" in host and host[0] != "["):
        raise ValueError("give HOST:PORT, such as 0.0.0.0:8471; an IPv6 address in brackets")
    return host.removeprefix("[").removesuffix("]"), int(port)


def secret_for(host: str, variable: str) -> bytes:
    """The secret of the environment variable `variable`.

    Raises:
        ValueError: it is not set, and `host` can be reached from other machines.
    """
    secret = secret_of(variable).encode()
    if not secret and not is_loopback(host):
        raise ValueError(
            f"{host!r} is not this machine alone, and whoever reaches it would move the arm: give both "
            f"machines the same secret in the environment variable {variable}"
        )
    return secret


class RemoteLeaderOptions(LeaderTable):
    """A leader on another machine, which runs ``dexrun lead --to HOST:PORT``.

    Attributes:
        listen: where its datagrams come, ``HOST:PORT`` (UDP). Any other address than the loopback's needs the
            secret.
        token_env: the environment variable with the secret that both machines have.
        rate_hz: how often it sends, and so what counts as few.
        wait_s: so long is waited for it at the start.
        warn_loss: of what was sent in two seconds, the share that never came, from which on it is said.
        warn_delay_s: the same of the round trip.
    """

    driver: Literal["remote"] = "remote"
    listen: str = "127.0.0.1:8471"
    token_env: str = "DEXRUN_LEADER_TOKEN"  # noqa: S105 - its name
    rate_hz: float = Field(default=100.0, gt=0, le=1000)
    wait_s: float = Field(default=60.0, ge=1.0, le=3600.0)
    warn_loss: float = Field(default=0.05, gt=0, lt=1)
    warn_delay_s: float = Field(default=0.1, gt=0, le=10)

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, text: str) -> str:
        split_address(text)
        return text

    def addresses(self) -> Mapping[str, str]:
        return {"listen": self.listen}

    def check_real(self) -> None:
        try:
            secret_for(split_address(self.listen)[0], self.token_env)
        except ValueError as error:
            raise ValueError(f"listen = {error}") from None

    def longest_start_s(self) -> float:
        return self.wait_s
