"""What a protocol's server is told: where it listens, who may ask, and how much."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from policies.mapping import KeyMap
from policies.remote.config import ActRemoteOptions, GrootOptions, LerobotOptions, OpenpiOptions
from policies.remote.hosts import plain_host
from runtime.addresses import is_loopback
from runtime.options import Options
from runtime.units import UnitMap

Protocol = Literal["gr00t", "lerobot", "openpi", "act"]

CLIENT_OPTIONS: dict[str, type[GrootOptions | LerobotOptions | OpenpiOptions | ActRemoteOptions]] = {
    "gr00t": GrootOptions,
    "lerobot": LerobotOptions,
    "openpi": OpenpiOptions,
    "act": ActRemoteOptions,
}


class FrontOptions(Options):
    """A protocol's listening end.

    Attributes:
        protocol: which one.
        host: address to bind; any but a loopback address needs `token_env` or `insecure`.
        port: 0 takes a free one and prints it.
        token_env: name of the environment variable that holds the token that clients must show.
        insecure: serve other machines without a token.
        allow_kill: let a client stop the server (GR00T's ``kill``).
        max_message_mib: a larger message is refused and its connection closed.
        max_clients: clients known at the same time; beyond that the longest silent one is forgotten.
        max_policies: of those, how many have a policy of their own where it remembers the episode.
        client_idle_s: a client that is silent for longer is forgotten, with its episode.
        max_pending: requests of one client that may wait; more are refused.
        drain_s: on a stop, how long requests in flight may take.
        jpeg: take compressed frames from our own clients.
        similar_fraction: LeRobot: an observation is like the last one if no joint moved by more than this
            fraction of its range. The original compares the norm of the raw state with 1.
        observation_wait_s: LeRobot: how long ``GetActions`` waits for an observation.
        fps: LeRobot: time stamps of a chunk's steps are so far apart.
        aggregation: ACT: predictions of the same step weigh ``exp(-aggregation * i)``, oldest first.
        chunk_steps: rows of a chunk that are sent; 0 sends all.
        keys: the clients' names; without them those of a ``[policy]`` that is itself a client, else the
            protocol's usual ones.
        units: the clients' units; found in the same way.
    """

    protocol: Protocol = "gr00t"
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    token_env: str = ""
    insecure: bool = False
    allow_kill: bool = False
    max_message_mib: int = Field(default=32, ge=1, le=1024)
    max_clients: int = Field(default=256, ge=1, le=10_000)
    max_policies: int = Field(default=32, ge=1, le=10_000)
    client_idle_s: float = Field(default=300.0, gt=0.0, le=86400.0)
    max_pending: int = Field(default=4, ge=1, le=1000)
    drain_s: float = Field(default=10.0, ge=0.0, le=600.0)
    jpeg: bool = True
    similar_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    observation_wait_s: float = Field(default=2.0, gt=0.0, le=60.0)
    fps: float = Field(default=30.0, gt=0.0, le=1000.0)
    aggregation: float = Field(default=0.01, ge=0.0, le=10.0)
    chunk_steps: int = Field(default=0, ge=0, le=1000)
    keys: KeyMap | None = None
    units: UnitMap | None = None

    @field_validator("host")
    @classmethod
    def _a_host_alone(cls, host: str) -> str:
        if host in ("", "*"):
            raise ValueError("give an address of this machine; 0.0.0.0 or :: is all of them")
        return plain_host(host)

    @model_validator(mode="after")
    def _guarded(self) -> FrontOptions:
        if not is_loopback(self.host) and not (self.token_env or self.insecure):
            raise ValueError(
                f"host {self.host} is reachable from other machines: "
                "name a token with token_env, or say insecure = true"
            )
        return self

    @field_validator("keys")
    @classmethod
    def _as_sent(cls, keys: KeyMap | None) -> KeyMap | None:
        for name in ("instruction_tip", "tip_camera"):
            if keys is not None and getattr(keys, name) != getattr(keys.as_sent(), name):
                raise ValueError(
                    f"{name} has no effect here: a client says where the object is in its text, or in "
                    "tip.x, tip.y and tip.z of serve.keys.state"
                )
        return keys

    @model_validator(mode="after")
    def _units_fit_the_protocol(self) -> FrontOptions:
        self.resolved_units()
        return self

    def resolved_keys(self) -> KeyMap:
        """The clients' key map."""
        return self.keys or CLIENT_OPTIONS[self.protocol]().keys

    def resolved_units(self) -> UnitMap:
        """The clients' unit map: what is not given is as the protocol has it."""
        own: UnitMap = CLIENT_OPTIONS[self.protocol]().units
        if self.units is None:
            return own
        return UnitMap(**{**own.model_dump(exclude_unset=True), **self.units.model_dump(exclude_unset=True)})
