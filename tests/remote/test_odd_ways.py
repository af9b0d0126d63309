"""What other people's policy servers and clients write in other ways than ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from websockets.sync.client import connect

from dexrun.config.serve_options import ServeOptions
from policies.encoding.limits import WireError
from policies.pickles import reader
from policies.pickles.arrays import NUMPY, TORCH
from policies.remote.groot import client as groot
from policies.remote.lerobot import codec as lerobot
from policies.remote.lerobot import rpc
from policies.remote.openpi import client as openpi
from policies.remote.openpi import codec
from tests.remote.support import GUARD_S, EchoPolicy, serving
from tests.remote.test_serve import IMAGE, JOINTS, LerobotPeer

ROWS = np.arange(12, dtype=np.float32).reshape(2, 6)


def of_groot(value: Any) -> Any:
    return groot.parse_actions([{"arm": value}, {}])["arm"]


def of_openpi(value: Any) -> Any:
    return openpi.parse_actions({"actions": value}, ("actions",))["actions"]


@pytest.mark.parametrize(
    ("parse", "lift"),
    [(of_groot, lambda rows: rows[None]), (of_openpi, lambda rows: rows)],
    ids=["groot", "openpi"],
)
def test_of_an_answer_only_numbers_are_taken_and_one_chunk(
    parse: Callable[[Any], Any], lift: Callable[[Any], Any]
) -> None:
    for rows in (ROWS, ROWS.astype("f2"), ROWS.astype(">f4"), ROWS.astype("i4"), np.asfortranarray(ROWS)):
        assert (parse(lift(rows)) == ROWS).all()
    for rows in (ROWS > 3, ROWS[:0], ROWS[:, :0], ROWS[0], np.stack([ROWS, ROWS])):
        with pytest.raises(WireError, match=r"numbers are wanted|steps, size\] is wanted"):
            parse(lift(rows))
    with pytest.raises(WireError, match=r"steps, size\] is wanted"):
        parse(np.stack([ROWS, ROWS]))  # two candidates, of which none is chosen


def test_torchs_bfloat16_is_read_as_the_numbers_it_holds() -> None:
    """As a policy in half precision leaves its actions, of which LeRobot's server makes no float32."""
    import pickle

    import torch

    rows = (torch.arange(24, dtype=torch.float32) / 7 - 1).reshape(4, 6)
    for tensor in (rows.bfloat16(), rows.bfloat16()[1], rows.half(), torch.tensor([-0.0, 3e38]).bfloat16()):
        read = reader.load(pickle.dumps(tensor), {**NUMPY, **TORCH})
        assert read.dtype.kind == "f"
        assert (np.asarray(read, np.float32) == tensor.float().numpy()).all()


def instructions(**renames: str) -> bytes:
    features = {
        "observation.state": {"names": [f"{joint}.pos" for joint in JOINTS]},
        "observation.images.top": {},
        "observation.images.wrist": {},
    }
    renamed = {was.replace("__", "."): now for was, now in renames.items()}
    setup = lerobot.PolicySetup("act", "x", features, 20, rename_map=renamed)
    return rpc.data_message(lerobot.encode_setup(setup))


def test_a_lerobot_client_may_name_its_cameras_otherwise() -> None:
    """``--rename_map``: what it says holds for every later episode, as the length of its chunks does."""
    values = {f"{j}.pos": 0.0 for j in JOINTS} | {"top": IMAGE + 7, "wrist": IMAGE, "task": "x"}
    timed = lerobot.TimedObservation(2.5, 1, values, must_go=True)
    message = rpc.observation_messages(lerobot.encode_observation(timed))[0]
    policy = EchoPolicy()
    with serving(policy, ServeOptions(protocol="lerobot")) as server, LerobotPeer(server.port) as peer:
        with pytest.raises(grpc.RpcError, match="features lack front"):
            peer.call("SendPolicyInstructions", instructions())
        told = instructions(observation__images__top="observation.images.front")
        peer.call("SendPolicyInstructions", told)
        for _ in range(2):
            peer.call("SendObservations", message)
            assert len(peer.actions()) == 20
            peer.call("Ready")
    head = policy.seen[0].frames["head"].color
    assert (head == IMAGE + 7).all()


@pytest.mark.parametrize(
    ("renames", "said"),
    [
        ({"observation__state": "observation.joints"}, "renames 'observation.state' to 'observation.joints'"),
        (
            {
                "observation__images__top": "observation.images.front",
                "observation__images__left": "observation.images.front",
            },
            "gives two cameras one name",
        ),
    ],
)
def test_what_cannot_be_renamed_is_said(renames: dict[str, str], said: str) -> None:
    options = ServeOptions(protocol="lerobot")
    with (
        serving(EchoPolicy(), options) as server,
        LerobotPeer(server.port) as peer,
        pytest.raises(grpc.RpcError, match=said),
    ):
        peer.call("SendPolicyInstructions", instructions(**renames))


def test_an_openpi_client_may_send_its_state_as_a_list() -> None:
    options = ServeOptions(protocol="openpi")
    keys = options.resolved_keys()
    (key,) = keys.state
    observation: dict[str, Any] = dict.fromkeys(keys.cameras.values(), IMAGE) | {keys.instruction: "x"}
    policy = EchoPolicy()
    with serving(policy, options) as server, connect(f"ws://127.0.0.1:{server.port}") as peer:
        peer.recv(GUARD_S)
        for state in ([0, 0.5, 0, 0, 0, 1], np.array([0, 0.5, 0, 0, 0, 1])):
            peer.send(b"".join(codec.encode({**observation, key: state})))
            answer = peer.recv(GUARD_S)
            assert isinstance(answer, bytes), answer
        peer.send(b"".join(codec.encode({**observation, key: [0, "0.5", 0, 0, 0, 1]})))
        assert f"state {key!r} is a list; an array is wanted" in str(peer.recv(GUARD_S))
    first, second = (seen.arm.position for seen in policy.seen)
    assert (first == second).all()
