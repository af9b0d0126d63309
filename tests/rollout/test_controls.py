"""What a person can say in a rollout: keys, requests, and episodes of which nothing is recorded."""

from __future__ import annotations

import asyncio
import json
import os
import pty
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dexrun.config.load import ConfigError, load
from dexrun.config.recording_options import RecordingOptions
from dexrun.episodes.api import EpisodeApi
from dexrun.episodes.episodes import EpisodeError, Episodes
from dexrun.episodes.keys import KeyParser, open_keys
from dexrun.episodes.unrecorded import Unrecorded
from dexrun.modes.driving import ByHand
from dexrun.outcome import Outcome
from drivers.feetech.calibration import save_calibration
from runtime.clock import RealClock
from runtime.stepped import SteppedClock
from tests.feetech.rig import CALIBRATION

CONFIG = Path(__file__).parents[2] / "config.toml"


def unrecorded(clock: Any, **keys: Any) -> Episodes:
    return Episodes(Unrecorded(clock), RecordingOptions(**keys), now_ns=clock.now_ns)


def test_a_lone_escape_is_a_key_and_arrows_are_still_arrows() -> None:
    parser = KeyParser()
    assert parser.feed(b"p\t ti") == ["pause", "take", "toggle", "take", "instruct"]
    assert parser.feed(b"\x1b") == []
    assert parser.escaped
    assert parser.feed(b"[C") == ["toggle"]  # the rest of an arrow, late
    assert parser.lone() == []
    parser.feed(b"\x1b")
    assert parser.lone() == ["quit"]
    assert parser.feed(b"s") == ["success"]


def test_escape_ends_the_run_and_a_modes_keys_are_its_own() -> None:
    ours, theirs = pty.openpty()
    clock, pressed = RealClock(), list[str]()
    episodes = unrecorded(clock)

    async def main() -> None:
        extra = {"pause": lambda: pressed.append("pause")}
        with open_keys(episodes, theirs, extra) as listening:
            assert listening
            os.write(ours, b"pt\x1b")  # nobody takes over in this mode
            while not episodes.quitting:
                await clock.sleep_until_ns(clock.now_ns() + 1_000_000)

    clock.run(main)
    os.close(ours)
    os.close(theirs)
    assert pressed == ["pause"]


class Mode:
    """Pauses; cannot be taken over."""

    def __init__(self) -> None:
        self.paused = False
        self.told: list[str] = []

    def requests(self) -> Mapping[str, Callable[[], None]]:
        return {"/pause": self.pause, "/take": self.take}

    def texts(self) -> Mapping[str, tuple[str, Callable[[str], None]]]:
        return {"/tell": ("instruction", self.tell)}

    def tell(self, words: str) -> None:
        if not words:
            raise EpisodeError("nothing is said")
        self.told.append(words)

    def state(self) -> Mapping[str, Any]:
        return {"driving": "paused" if self.paused else "policy"}

    def pause(self) -> None:
        self.paused = True

    def take(self) -> None:
        raise EpisodeError("nothing to take over with")


def test_a_modes_requests_are_answered_with_its_state() -> None:
    clock, mode = RealClock(), Mode()
    answers: list[tuple[int, dict[str, Any]]] = []

    async def main() -> None:
        api = EpisodeApi(unrecorded(clock), mode)
        port = await api.open(0)
        for line in ("GET /state", "POST /pause", "POST /take", "POST /give"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{line} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            await writer.wait_closed()
            answers.append((int(head.split()[1]), json.loads(body)))
        await api.close()

    clock.run(main)
    assert [status for status, _ in answers] == [200, 200, 409, 404]
    assert [body.get("driving") for _, body in answers] == ["policy", "paused", "paused", None]
    assert answers[2][1]["error"] == "nothing to take over with"
    assert answers[3][1]["error"].endswith("/quit, /pause, /take, /tell")


def test_a_mode_is_told_something_in_words() -> None:
    clock, mode = RealClock(), Mode()
    statuses: list[int] = []

    async def main() -> None:
        api = EpisodeApi(unrecorded(clock), mode)
        port = await api.open(0)
        for body in ('{"instruction": "the blue cube"}', "{}", '{"task": "x"}'):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST /tell HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            statuses.append(int((await reader.read()).split()[1]))
            writer.close()
            await writer.wait_closed()
        await api.close()

    clock.run(main)
    assert statuses == [200, 409, 400]
    assert mode.told == ["the blue cube"]


def test_episodes_are_counted_where_nothing_is_recorded() -> None:
    clock = SteppedClock()
    episodes = unrecorded(clock, episodes=3, episode_s=1.0)
    busy = ["the arm moves home"]
    episodes.gate = lambda: busy[0]
    ended: list[int] = []
    episodes.ended.append(lambda: ended.append(clock.now_ns()))
    outcomes: list[Outcome] = []

    async def main() -> None:
        import anyio

        async def free() -> None:
            await clock.sleep_until_ns(clock.now_ns() + 500_000_000)
            with pytest.raises(EpisodeError, match="moves home"):
                episodes.start()
            busy[0] = ""
            while episodes.on is None:
                await episodes.changed()
            episodes.discard("a test")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(free)
            outcomes.append(await ByHand(clock, episodes, at_once=True, alone=True).run())

    clock.run(main)
    assert (outcomes[0].outcome, outcomes[0].exit_code) == ("completed", 0)
    assert outcomes[0].reason == "3 episodes are made"  # none is recorded
    assert str(episodes.status()) == "done 3 (3/3 made)"
    assert (episodes.recorded, episodes.discarded, len(ended)) == (3, 1, 4)
    reports = episodes.recorder.reports
    assert [report["episode"] for report in reports] == [0, 1, 2]
    assert {report["state"] for report in reports} == {"unrecorded"}
    with pytest.raises(EpisodeError, match="accepted are"):
        episodes.label("splendid")


ROLLOUT = ["--config", str(CONFIG), "--mode", "rollout"]
REAL = ["--arm.port", "/dev/ttyACM0", "--arm.calibration", "calibration.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--realtime.clock", "stepped"], "recording.episodes = 0: on the stepped clock nobody"),
        (["--realtime.clock", "stepped", "--episodes", "2"], "recording.episode_s = 0: on the stepped clock"),
        (["--rollout.arm", "left"], "rollout.arm = 'left' is not one of several arms"),
        (["--policy.type", "act", *REAL], "random weights would move the real arm of [arm]"),
        (["--policy.type", "act", "--policy.cameras", '["side"]'], "policy.cameras = 'side' is not a camera"),
    ],
)
def test_a_rollout_that_cannot_be_is_refused(words: list[str], message: str, tmp_path: Path) -> None:
    save_calibration(tmp_path / "calibration.json", CALIBRATION)
    with pytest.raises(ConfigError) as error:
        load([*ROLLOUT, *[str(tmp_path / w) if w == "calibration.json" else w for w in words]], {})
    assert message in str(error.value)


def test_short_names_and_what_a_rollout_does_not_need() -> None:
    words = ["--task", "put the cube in the tray", "--episodes", "20", "--grasp.head", "nowhere"]
    settings = load([*ROLLOUT, *words], {})
    assert (settings.recording.task, settings.recording.episodes) == ("put the cube in the tray", 20)
    assert settings.leader_tables() == {}
    assert set(load([*ROLLOUT, "--rollout.take_over", "true"], {}).leader_tables()) == {"leader"}
