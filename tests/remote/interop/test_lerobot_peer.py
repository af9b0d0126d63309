"""LeRobot 0.4.4's own client against our server, and our client against its own server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dexrun.config.serve_options import ServeOptions
from policies.remote.config import LerobotOptions
from tests.remote.interop.peers import Peer, needs
from tests.remote.support import EchoPolicy, connected, observation, refused, serving

PEER = "lerobot"
pytestmark = needs(PEER)


def test_its_client_drives_its_robot_with_our_chunks() -> None:
    policy = EchoPolicy(steps=20)
    with serving(policy, ServeOptions(protocol="lerobot", fps=60)) as server:
        with Peer(PEER, "client", str(server.port), "30") as peer:
            got = json.loads(peer.line("RESULT "))
        malformed = refused(server, "malformed")
    assert len(got["sent"]) >= 30
    assert malformed == 0
    assert len(policy.seen) >= 3
    first = policy.seen[0]
    assert first.instruction == "stack"
    assert first.frames["head"].color.shape == (48, 64, 3)
    assert (first.frames["head"].color == 7).all()
    assert (first.frames["wrist"].color == 9).all()
    # the first chunk's first step: where the robot was, in percent of its range
    image_means = (7 + 9) / 1e5
    units = server.server.service.side.map.units
    wanted = units.to_policy(units.to_robot(np.full(6, 10.0)) + image_means)
    assert np.abs(np.array(got["sent"][0]) - wanted).max() < 1e-3
    assert np.isfinite(got["sent"]).all()


def test_our_client_gets_its_chunks(tmp_path: Path) -> None:
    with Peer(PEER, "server", str(tmp_path)) as peer:
        port = int(peer.line("PORT "))
        with connected(
            PEER, port, pretrained=str(tmp_path), chunk_steps=8, request_timeout_s=60.0, classes=CLASSES
        ) as remote:
            remote.warm_up()
            for tick in (3, 4, 3):  # a time step seen before goes through as well: it must
                made = observation(tick, instruction=f"do {tick}")
                rows = remote.infer(made).rows
                said = json.loads(peer.line("CHUNK "))
                assert (said["timestep"], said["task"]) == (tick, f"do {tick}")
                assert rows.shape == (8, 6)
                wanted = remote.map.units.to_robot(np.array(said["actions"]))
                assert np.abs(rows - wanted).max() < 1e-6
            counts = remote.statistics()
            assert (counts["connects"], counts["replies"]) == (1, 3)
            assert counts.get("late", 0) == 0


CLASSES = LerobotOptions.model_fields["classes"].default
