"""``--engine ray``: the same policy class in two replicas of a local Ray."""

from __future__ import annotations

import json
from typing import Any

from dexrun.config.serve_options import ServeOptions
from tests.remote.interop.peers import Peer, needs
from tests.remote.interop.ray_peer import CLIENTS, TIMES

pytestmark = needs("ray")

TRIES = 3
DID_NOT_START = ("timed out during startup", "Failed to connect to GCS", "proxies not available")
"""Ray's own limits on its own start; no option of Ray's changes them, and a busy machine may need longer."""


def told(*arguments: str) -> dict[str, Any]:
    """What the peer found. One whose Ray did not start has found nothing yet, and begins anew."""
    for left in reversed(range(TRIES)):
        with Peer("ray", *arguments) as peer:
            try:
                return dict(json.loads(peer.line("RESULT ")))
            except AssertionError as ended:
                if not left or not any(words in str(ended) for words in DID_NOT_START):
                    raise
    raise AssertionError


def test_two_replicas_answer_eight_clients() -> None:
    got = told()
    assert got["wrong"] == []
    assert got["processes"] == 2
    assert got["errors"] == ["the policy raised ZeroDivisionError", "told to refuse"]
    assert float(got["answered"].split()[-1]) == CLIENTS * TIMES


def test_an_engine_leaves_other_peoples_applications_alone() -> None:
    """Whether it was told of their cluster or has one of its own, beside theirs on the same machine."""
    got = told("neighbours")
    assert [json.loads(each) for each in got["guests"]] == [
        [50, ["theirs"], "Ray Serve did not answer"],
        [50, [], "Ray Serve did not answer"],
    ]
    assert got["left"] == ["theirs"]
    assert got["answer"] == "theirs"


def test_the_options_name_the_cluster() -> None:
    assert ServeOptions(engine="ray").ray_address == ""
