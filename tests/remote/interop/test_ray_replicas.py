"""``--engine ray``: the same policy class in two replicas of a local Ray."""

from __future__ import annotations

import json

from dexrun.config.serve_options import ServeOptions
from tests.remote.interop.peers import Peer, needs
from tests.remote.interop.ray_peer import CLIENTS, TIMES

pytestmark = needs("ray")


def test_two_replicas_answer_eight_clients() -> None:
    with Peer("ray") as peer:
        got = json.loads(peer.line("RESULT "))
    assert got["wrong"] == []
    assert got["processes"] == 2
    assert got["errors"] == ["the policy raised ZeroDivisionError", "told to refuse"]
    assert got["answered"].endswith(f" {CLIENTS * TIMES}")


def test_an_engine_leaves_other_peoples_applications_alone() -> None:
    """Whether it was told of their cluster or has one of its own, beside theirs on the same machine."""
    with Peer("ray", "neighbours") as peer:
        got = json.loads(peer.line("RESULT "))
    assert [json.loads(each) for each in got["guests"]] == [
        [50, ["theirs"], "Ray Serve did not answer"],
        [50, [], "Ray Serve did not answer"],
    ]
    assert got["left"] == ["theirs"]
    assert got["answer"] == "theirs"


def test_the_options_name_the_cluster() -> None:
    assert ServeOptions(engine="ray").ray_address == ""
