"""Options of ``dexrun serve``: the ``[serve]`` table."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from policies.remote.serving.options import FrontOptions
from runtime.parts import PolicyTable


class ServeOptions(FrontOptions):
    """A policy behind a protocol.

    Attributes:
        metrics_port: where ``/metrics`` is; 0 takes a free one, -1 serves none (openpi: also on `port`).
        batch_size: so many requests that wait together are inferred together.
        batch_delay_s: how long the first of a batch waits for others.
        engine: infer in this process, or in Ray Serve's replicas.
        replicas: with Ray, how many.
        ray_address: of a running Ray cluster; empty starts a local one.
        policy: what to serve; without it, ``[policy]``.
    """

    metrics_port: int = Field(default=-1, ge=-1, le=65535)
    batch_size: int = Field(default=8, ge=1, le=1024)
    batch_delay_s: float = Field(default=0.0, ge=0.0, le=1.0)
    engine: Literal["local", "ray"] = "local"
    replicas: int = Field(default=2, ge=1, le=64)
    ray_address: str = ""
    policy: PolicyTable | None = None
