"""The ACT server whose state has inputs that are no joints, and whose action holds velocities, too."""

from __future__ import annotations

import pickle
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from dexrun.config.serve_options import ServeOptions
from dexrun.serve.server import local_server
from policies.remote.config import ActRemoteOptions
from policies.remote.make import make_remote
from runtime.clock import RealClock
from runtime.interfaces import PolicyError, PolicySpec
from runtime.joints import JointLayout
from runtime.messages import ArmState, Frame, Observation, PolicyAnswer
from tests.remote.support import GUARD_S, Running

FILE = Path(__file__).parents[2] / "docs" / "examples" / "act-zmq-17.toml"
NAMES = (*(f"joint{i}" for i in range(1, 8)), "gripper")
ROBOT = JointLayout(NAMES, np.array([*[[-2.9, 2.9]] * 7, [0.0, 1.0]]), (7,))
POSITION = np.array([0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, 0.8])
CAMERAS = {"main": "rgb_main", "left": "rgb_left", "under": "rgb_under"}


def observation(size: tuple[int, int] = (480, 640)) -> Observation:
    frames = {
        name: Frame(name, 0, np.full((*size, 3), level, np.uint8)) for level, name in enumerate(CAMERAS, 1)
    }
    arm = ArmState(0, POSITION, np.arange(8) * 0.1, np.zeros(8))
    return Observation(0, 0, 0, arm, frames)


def options(**changed: Any) -> ActRemoteOptions:
    table = tomllib.loads(FILE.read_text())["policy"]
    return ActRemoteOptions.model_validate(
        {**table, "backoff_s": 0.0, "request_timeout_s": GUARD_S, **changed}
    )


@pytest.fixture
def original() -> Iterator[tuple[int, list[Any]]]:
    """A server that behaves as the original one, with plain pickles: its port, and what it was asked."""
    asked: list[Any] = []
    with zmq.Context() as context, context.socket(zmq.REP) as rep:
        port = rep.bind_to_random_port("tcp://127.0.0.1")

        def run() -> None:
            while (message := pickle.loads(rep.recv())) != "end":
                asked.append(message)
                if isinstance(message, str):
                    answer: dict[str, Any] = {"status": "OK"}
                elif "qpos" not in message:
                    answer = {"status": "ERROR", "message": "'qpos'"}
                else:
                    action = np.concatenate([POSITION + 0.01, np.full(8, 99.0)]).astype(np.float32)
                    answer = {"status": "OK", "action": action}
                rep.send(pickle.dumps(answer))

        thread = threading.Thread(target=run)
        thread.start()
        yield port, asked
        with context.socket(zmq.REQ) as end:
            end.connect(f"tcp://127.0.0.1:{port}")
            end.send(pickle.dumps("end"))
            thread.join(GUARD_S)
            end.close(linger=0)


def test_seventeen_numbers_are_sent_and_eight_positions_taken(original: tuple[int, list[Any]]) -> None:
    port, asked = original
    remote = make_remote(options(port=port), ROBOT, RealClock())
    try:
        rows = remote.infer(observation((240, 320))).rows
    finally:
        remote.close()
    step = asked[-1]
    assert asked[0] == "RESET"
    assert set(step) == {"qpos", "images"}
    assert step["qpos"].dtype == np.float32
    np.testing.assert_array_equal(step["qpos"], np.float32([0.0] * 9 + POSITION.tolist()))
    for level, key in enumerate(CAMERAS.values(), 1):
        image = step["images"][key]
        assert (image.dtype, image.shape, int(image.max())) == (np.uint8, (480, 640, 3), level)
    np.testing.assert_allclose(rows, [POSITION + 0.01], atol=1e-7)  # and no 99


def test_a_server_that_wants_the_end_effectors_pose_gets_it(original: tuple[int, list[Any]]) -> None:
    port, asked = original
    given = options(port=port)
    state = {
        "qpos": (
            "end_effector.x",
            "end_effector.y",
            "end_effector.axis_angle.2",
            *given.keys.state["qpos"][3:],
        )
    }
    keys = given.keys.model_copy(update={"state": state})
    remote = make_remote(given.model_copy(update={"keys": keys}), ROBOT, RealClock())
    assert remote.spec.end_effector
    where = np.eye(4)
    where[:2, 3] = 0.25, -0.5
    try:
        remote.infer(replace(observation((48, 64)), end_effector={"": where}))
    finally:
        remote.close()
    np.testing.assert_array_equal(asked[-1]["qpos"][:4], [0.25, -0.5, 0.0, 0.0])
    assert asked[-1]["qpos"].shape == (17,)


class Steady:
    """Asks for the observed position, a little further."""

    def __init__(self) -> None:
        self.spec = PolicySpec("steady", 5, 8, tuple(CAMERAS))
        self.seen: list[Observation] = []

    def warm_up(self) -> None: ...

    def infer(self, observation: Observation) -> PolicyAnswer:
        self.seen.append(observation)
        return PolicyAnswer(np.repeat(observation.arm.position[None] + 0.02, 5, axis=0))

    def reset(self) -> None: ...

    def close(self) -> None: ...

    def statistics(self) -> dict[str, int]:
        return {}


@pytest.mark.parametrize("whole", [False, True])
def test_both_ends_with_the_same_table(whole: bool) -> None:
    policy, given = Steady(), options()
    serve = ServeOptions(protocol="act", keys=given.keys, units=given.units)
    running = Running(local_server(policy, serve, ROBOT)).start()
    try:
        remote = make_remote(options(port=running.port, ask_steps=whole), ROBOT, RealClock())
        try:
            rows = remote.infer(observation()).rows
        finally:
            remote.close()
    finally:
        running.stop()
    np.testing.assert_allclose(policy.seen[-1].arm.position, POSITION, atol=1e-6)
    assert {name: int(frame.color.max()) for name, frame in policy.seen[-1].frames.items()} == {
        "main": 1, "left": 2, "under": 3
    }  # fmt: skip
    assert rows.shape == (5 if whole else 1, 8)
    np.testing.assert_allclose(rows[0], POSITION + 0.02, atol=1e-6)


def test_our_own_server_gives_no_velocities_and_refuses_deltas() -> None:
    given = options()
    server = local_server(Steady(), ServeOptions(protocol="act", keys=given.keys, units=given.units), ROBOT)
    running = Running(server).start()
    try:
        with zmq.Context() as context, context.socket(zmq.REQ) as peer:
            peer.connect(f"tcp://127.0.0.1:{running.port}")
            images = {key: np.zeros((480, 640, 3), np.uint8) for key in CAMERAS.values()}
            qpos = np.float32([*[5.0] * 9, *POSITION])  # a base elsewhere, and moving: nothing to this arm
            peer.send(pickle.dumps({"qpos": qpos, "images": images}))
            action = np.asarray(pickle.loads(peer.recv())["action"])
    finally:
        running.stop()
    np.testing.assert_allclose(action, [*(POSITION + 0.02), *[0.0] * 8], atol=1e-6)
    keys = given.keys.model_copy(update={"action": {"action": tuple(f"{name}.delta" for name in NAMES)}})
    with pytest.raises(PolicyError, match="a server answers with targets"):
        Running(local_server(Steady(), ServeOptions(protocol="act", keys=keys), ROBOT)).start()
