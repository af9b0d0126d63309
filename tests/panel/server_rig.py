"""A panel's server on a socket of its own, and a run that is none: rings that a test fills."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from dexrun.panel.link import PublishedRun
from dexrun.panel.server.application import PanelServer, listen
from dexrun.panel.server.options import PanelServerOptions
from dexrun.panel.shared import SharedCamera, SharedFacts
from runtime.clock import RealClock

HEAD = SharedCamera(
    64,
    48,
    depth=True,
    depth_scale_m=0.001,
    intrinsics={"fx": 60.0, "fy": 60.0, "cx": 32.0, "cy": 24.0},
    pose=[[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.5], [0, 0, 0, 1]],
)
FACTS = SharedFacts(
    mode="teleop",
    rate_hz=30.0,
    joints=("pan", "jaw"),
    units=("rad", "0..1"),
    ranges_rad=((-1.0, 1.0), (0.0, 1.0)),
    grippers=(1,),
    force_channels=1,
    cameras={"head": HEAD},
)
Script = Callable[["Panel"], Awaitable[None]]


class Panel:
    """A server that runs, as its visitors see it."""

    def __init__(self, server: PanelServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{server.port}", timeout=30.0, trust_env=False
        )

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}/ws"

    def page(self, **more: Any) -> connect:
        options: dict[str, Any] = {"subprotocols": ["dexrun.1"], "max_size": None, "proxy": None, **more}
        return connect(self.address, **options)

    async def post(self, path: str, said: Any, **more: Any) -> httpx.Response:
        return await self.http.post(path, json=said, **more)


def serve(folder: Path, script: Script, patience_s: float = 60, **changed: Any) -> None:
    """Run `script` against a server whose folders are below `folder`."""
    options = PanelServerOptions(
        port=0,
        runs=folder / "runs",
        data=(folder / "data", folder / "outputs"),
        config=folder / "config.toml",
    )
    options = replace(options, **changed)
    clock = RealClock()

    async def main() -> None:
        server, ended = PanelServer(options, clock), asyncio.Event()
        ready = asyncio.Event()
        task = asyncio.create_task(server.run(listen(options.host, options.port), ready.set, ended.wait))
        await ready.wait()
        panel = Panel(server, folder)
        try:
            async with asyncio.timeout(patience_s):
                await script(panel)
        finally:
            await panel.http.aclose()
            ended.set()
            await task

    clock.run(main)


def published(folder: Path, name: str = "2026-11-27T10-00-00") -> PublishedRun:
    run = folder / "runs" / name
    run.mkdir(parents=True)
    return PublishedRun(run, FACTS)


def picture(run: PublishedRun, stamp_ns: int, value: int) -> None:
    color, depth = np.full((48, 64, 3), value, np.uint8), np.full((48, 64), 400, np.uint16)
    run.cameras["head"].push(stamp_ns, color=color, depth=depth, mask=color[..., 0], masked=1)


async def say(page: ClientConnection, kind: str, **more: Any) -> None:
    await page.send(json.dumps({"type": kind, **more}))


async def hear(page: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of that type, or picture or cloud; what comes before it is dropped."""
    while True:
        came = await page.recv()
        if isinstance(came, bytes):
            (length,) = struct.unpack("<I", came[:4])
            said = {**json.loads(came[4 : 4 + length]), "payload": came[4 + length :]}
            if said["kind"] == kind:
                return said
        else:
            said = json.loads(came)
            if said["type"] == kind:
                return dict(said)
