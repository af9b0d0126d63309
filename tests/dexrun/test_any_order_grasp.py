"""Whatever persons ask of grasp mode, in whatever order, whatever planner, policy and devices do meanwhile.

They ask as a panel does, over HTTP and by keys. What is looked at is every target that was posted, every
attempt, and what was recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import anyio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dexrun.data.recorded import recorded_settings
from dexrun.data.verify import verify
from dexrun.episodes.api import EpisodeApi
from dexrun.episodes.keys import press
from dexrun.modes.grasp import GraspMode
from dexrun.modes.grasp_attempt import GraspAttempt
from dexrun.modes.hand_over import DrivingPhase
from dexrun.panel.link import NoRunError
from planner import plan
from planner.config import FaultName
from planner.scene_reader import server
from planner.scene_reader.server import SceneReader
from runtime.limits import LEAST_SPEED
from runtime.messages import Floats, PolicyStatus
from runtime.recording.reader import Recording
from tests.dexrun import any_order
from tests.dexrun.any_order import BRAKING_TICKS, RATE, Person, Step, play
from tests.dexrun.drawn_table import DrawnTable, Picker, perform_grasp
from tests.dexrun.rig import arguments
from tests.dexrun.small_run import Script, Small, watched

PROMPTS = ("clear the table", "put the red cube in the tray", "put the green cube in the tray")
ASKED = st.one_of(
    st.sampled_from(["hold", "resume", "home", "pause", "pause", "take", "take", "give", "stop"]).map(
        lambda name: (name, ())
    ),
    st.tuples(
        st.sampled_from(["reset", "resume"]), st.sampled_from(["newest", "newest", "before", "none"])
    ).map(lambda asked: (asked[0], (("seen", asked[1]),))),
    st.just(("go on", ())),
    st.sampled_from([*PROMPTS, ""]).map(lambda text: ("tell", (("text", text),))),
    st.sampled_from([LEAST_SPEED, 0.3, 1.0, -1]).map(lambda value: ("speed", (("value", value),))),
)
KEYS = st.sampled_from(["estop", "reset", "go_on", "pause", "take", "jog.up"]).map(lambda key: f"key {key}")
HTTP = st.sampled_from(
    ["/estop", "/reset", "/resume", "/reset@old", "/pause", "/take", "/give", "/tell", "/state"]
)
FAULTS = [name for name in get_args(FaultName) if name != "none"]
PLANNER = st.tuples(st.sampled_from(FAULTS), st.integers(1, 4)).map(
    lambda what: f"planner {what[0]} {what[1]}"
)
POLICY = st.sampled_from(["raises", "fails", "nan", "late"]).map(lambda what: f"policy {what}")
DONE = st.sampled_from(
    [f"{what} {device}" for what in ("unplug", "plug", "plug") for device in ("arm", "leader", "head")]
)
DISK = st.sampled_from(["fill", "fill", "clear"])
PUSHED = st.sampled_from(["push", "let be"])
WHOLE = st.one_of(
    st.integers(0, 40).map(lambda ticks: f"stopped {ticks}"),
    st.integers(0, 40).map(lambda ticks: f"paused {ticks}"),
    st.tuples(st.sampled_from(["pushes", "picks", "puts"]), st.integers(0, 40)).map(
        lambda what: f"corrects {what[0]} {what[1]}"
    ),
)
"""What a person does who means it: with all orders that belong to it, and so long between them."""


def steps_of(most: int, longest: int, *besides: st.SearchStrategy[str]) -> st.SearchStrategy[list[Step]]:
    """What is asked for, and `besides`, up to `longest` ticks apart."""
    what = st.one_of(ASKED, *(each.map(lambda name: (name, ())) for each in besides))
    each = st.builds(lambda ticks, what: Step(ticks, *what), st.integers(0, longest), what)
    return st.lists(each, min_size=most // 3, max_size=most)


ENDS = st.sampled_from(
    [
        *any_order.ENDS,
        "key:quit",
        "key:estop key:quit",
        "/quit",
        "/estop /quit",
        "/estop SIGTERM",
    ]
)
SLACK_S = 1.0
ENDED = "the run ended"
LONGEST = 180
"""Ticks that a leader is waited for."""
PUSH = np.array([0.3, 0.2, -0.2, 0.1, 0.2, 0.2])


@dataclass
class Begun:
    """One attempt that was begun: of which of the plan's, at what, and what became of it."""

    of: plan.Attempt
    prompt: str
    marked_ns: int
    stopped_ns: int
    instruction: str
    result: plan.StepResult | None = None
    had_up: bool = False
    ended: list[PolicyStatus] = field(default_factory=list)


class GraspPerson(Person):
    """Asks at three doors; spoils what planner and policy answer."""

    def __init__(
        self, table: DrawnTable, picker: Picker, second: list[Step], ballast: Path | None = None
    ) -> None:
        super().__init__(ballast)
        self.table, self.picker, self.second = table, picker, second
        self.begun: list[Begun] = []
        self.estopped = False
        self.reader: SceneReader | None = None

    @property
    def stopped(self) -> bool:
        return self.estopped or super().stopped

    @property
    def grasping(self) -> GraspMode:
        mode = getattr(self.small.mode, "_mode", self.small.mode)
        assert isinstance(mode, GraspMode)
        return mode

    async def play(self, steps: list[Step], end: str, small: Small) -> None:
        self.small = small
        await small.until(lambda: small.mode is not None)
        async with self._http():
            await super().play(steps, end, small)

    async def _all(self, steps: list[Step]) -> None:
        """The second person's, too, at the same time."""

        async def one(steps: list[Step]) -> None:
            with contextlib.suppress(NoRunError):
                await super(GraspPerson, self)._all(steps)

        async with anyio.create_task_group() as both:
            both.start_soon(one, steps)
            both.start_soon(one, self.second)

    async def do(self, step: Step) -> None:
        what, _, more = step.name.partition(" ")
        if what in ("key", "stopped", "paused", "corrects", "planner", "policy") or what.startswith("/"):
            await self.small.pass_ticks(step.ticks)
        match what:
            case "key":
                self._press(more)
            case "planner":
                fault, _, requests = more.partition(" ")
                assert self.reader is not None
                self.reader.inject(fault, int(requests))  # type: ignore[arg-type]
            case "policy":
                self.picker.ails.append(more)
            case "stopped":
                await self._stops_and_goes_on(int(more))
            case "paused":
                self.small.asks("pause")
                await self.small.pass_ticks(int(more))
                self.small.asks("give")
            case "corrects":
                how, _, ticks = more.partition(" ")
                await self._corrects(how, int(ticks))
            case _ if what.startswith("/"):
                await self._post(what)
            case _:
                await super().do(step)

    async def _stops_and_goes_on(self, ticks: int) -> None:
        small, stopping = self.small, self.small.up.stopping
        small.asks("stop")
        await small.pass_ticks(BRAKING_TICKS + ticks)
        for name in ("reset", "resume"):
            small.asks(name, stopping.number)
            await small.pass_ticks(ticks)

    async def _corrects(self, how: str, ticks: int) -> None:
        """Takes the leader once it is offered, moves it, and gives back."""
        small, hand = self.small, self.small.hand_over
        assert hand is not None
        small.asks("take")
        if not small.leaders:
            return  # there is none, or a script has it in hand
        for _ in range(LONGEST):
            await small.pass_ticks(1)
            if hand.phase not in (DrivingPhase.BRINGING, DrivingPhase.POLICY):
                break
        small.asks("take")
        await small.pass_ticks(2)
        for row in self._way(how) if hand.phase is DrivingPhase.PERSON else ():
            if small.leader.held:
                break  # somebody else has taken it
            small.leader.position = row
            await small.pass_ticks(1)
        await small.pass_ticks(ticks)
        small.asks("give")

    def _way(self, how: str) -> list[Floats]:
        """Of the leader: somewhere, or to a cube and up with it, and down again."""
        start, picker = self.small.leader.position, self.picker
        if how == "pushes":
            return [start + share * PUSH for share in np.linspace(0, 1, 30)]
        left = [place for color, place in self.table.cubes.items() if color != self.table.held]
        assert picker.model is not None
        rows = list(picker.way(picker.model.copy(), start.copy(), left[0]))
        if how == "picks":
            return rows
        opened = rows[-1].copy()
        opened[-1] = 0.6
        return [*rows, *[opened] * 20]

    @contextlib.asynccontextmanager
    async def _http(self) -> AsyncIterator[None]:
        api = EpisodeApi(None, self.grasping, self.small.up.stopping)
        self._port = await api.open(0)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await api.close()

    async def _end(self, word: str) -> None:
        if "estop" in word and not (self.small.record and self.small.record.decided):
            self.estopped = True
        if word.startswith("key:"):
            self._press(word.removeprefix("key:"))
        elif word.startswith("/"):
            await self._post(word)
        else:
            await super()._end(word)

    def _press(self, key: str) -> None:
        press(None, key, self.grasping.commands(), self.small.up.stopping)

    async def _post(self, path: str) -> None:
        """As of somebody who has seen the newest stop; an ``@old`` page has not."""
        path, _, old = path.partition("@")
        number = self.small.up.stopping.number - bool(old)
        said = {"/tell": {"instruction": PROMPTS[1]}, "/reset": {"stop": str(number)}}.get(path, {})
        if path == "/resume":
            said = {"stop": str(number)}
        body = b"" if path == "/state" else json.dumps(said).encode()
        method = "GET" if path == "/state" else "POST"
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nConnection: close\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        with self.small.up.clock.hold():  # type: ignore[attr-defined] # it is stepped
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                writer.write(head.encode() + b"\r\n" + body)
                answer = await reader.read()
            finally:
                writer.close()
                await writer.wait_closed()
        status = int(answer.split()[1])
        assert status in ((409,) if old else (200, 409)), answer

    # --- what is watched

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Every attempt of runs within is noted, and the reader that answers."""
        run, person = GraspAttempt.run, self

        async def noted(attempt: GraspAttempt) -> plan.StepResult:
            mode = person.grasping
            begun = Begun(
                mode._plan.attempts[-1],
                mode._plan.prompt,
                attempt._marked.stamp_ns,
                person.small.up.stopping.stamp_ns,
                attempt._step.instruction,
            )
            person.begun.append(begun)
            answered = len(person.picker.answers)
            try:
                begun.result = await run(attempt)
                return begun.result
            finally:
                begun.had_up = attempt._had_up
                begun.ended = [status for _, status in person.picker.answers[answered:]]

        class Kept(SceneReader):
            def __init__(self, *given: Any) -> None:
                super().__init__(*given)
                person.reader = self

        with mock.patch.object(GraspAttempt, "run", noted), mock.patch.object(server, "SceneReader", Kept):
            yield

    def check(self) -> None:
        """What must hold of attempts, and of what was recorded."""
        self._check_begun()
        self._check_attempts(self.small.summary["attempts"])
        self._check_time()
        self._check_recording()

    def _check_begun(self) -> None:
        """Each is begun once, for a picture that is newer than the newest stop; its end is its own."""
        assert len({id(each.of) for each in self.begun}) == len(self.begun)
        for each in self.begun:
            assert each.marked_ns > each.stopped_ns
            assert each.instruction == each.of.instruction
            picked = self.picker.model is not None  # and the policy is no other
            if picked and isinstance(each.result, plan.Lifted) and not each.had_up:
                assert PolicyStatus.DONE in each.ended
            if picked and isinstance(each.result, plan.Failed) and each.result.kind == "policy":
                assert set(each.ended) != {PolicyStatus.RUNNING}
            if each.of.grasped:
                assert isinstance(each.result, plan.Lifted | plan.PutDown)

    def _check_attempts(self, told: list[dict[str, Any]]) -> None:
        """Each is counted once, in order; of those that are not begun none was grasped."""
        assert told == [each.summary() for each in self.grasping._plan.attempts]
        begun = {id(each.of) for each in self.begun}
        assert begun <= {id(each) for each in self.grasping._plan.attempts}
        for each in self.grasping._plan.attempts:
            assert not each.grasped or id(each) in begun
        numbers = [(each["instruction"], each["attempt"]) for each in told]
        for before, now in zip([("", 0), *numbers], numbers, strict=False):
            assert now[1] == 1 or now == (before[0], before[1] + 1), numbers

    def _check_time(self) -> None:
        """The time limit runs in the mode's own turns alone."""
        limit_s = self.small.up.settings.grasp.time_limit_s
        own = [each for each in self.small.moments if (each.phase, each.stop) == ("POLICY", "ready")]
        if self.small.summary["stop_reason"].startswith("time limit"):
            assert len(own) / RATE >= limit_s - SLACK_S
        assert len(own) / RATE <= limit_s + SLACK_S

    def _check_recording(self) -> None:
        """Whatever was recorded can be read, and comes out the same again; what was not is said."""
        recorded = self.small.summary["recording"]
        episodes = recorded["episodes"]
        if self._ballast is None:
            assert all(each["state"] == "finished" for each in episodes), recorded
        else:
            assert all(each["state"] == "finished" or each.get("error") for each in episodes), recorded
        if self.small.up.settings.grasp.take_over:
            assert [each["task"] for each in episodes] == [each.instruction for each in self.begun]
            for each, begun in zip(episodes, self.begun, strict=True):
                assert begun.of.completed or each["label"] != "success", each
                assert each["label"] != "none" or each.get("error") or each["stop_reason"] == ENDED, each
        finished = [each["episode"] for each in episodes if each["state"] == "finished"]
        place = Path(recorded["folder"])
        assert [int(path.stem[-6:]) for path in sorted(place.glob("*.mcap"))] == finished
        if not finished:
            return
        with Recording(place) as recording:
            whole_ones = {each["episode"] for each in episodes if not each.get("error")}
            for episode in recording.episodes:
                if episode.index not in whole_ones:
                    continue  # there may be no tick in it
                verdict = verify(episode, recorded_settings(episode))
                assert verdict.same, verdict.difference


def whole(
    steps: list[Step],
    end: str,
    second: list[Step] | None = None,
    disk: Path | None = None,
    **keys: str,
) -> GraspPerson:
    """One run, and all that is checked of it; `second` are another person's steps, `disk` is a small one."""
    table, picker = DrawnTable(), Picker()
    ballast = None if disk is None else disk / "ballast"
    person = GraspPerson(table, picker, second or [], ballast)
    run = partial(perform_grasp, table=table, picker=picker)
    with tempfile.TemporaryDirectory(dir=disk) as folder, person.watching():
        try:
            play(Path(folder), steps, end, person, run, **keys)
        finally:
            if ballast is not None:
                ballast.unlink(missing_ok=True)
        person.check()
    return person


def on_the_world(steps: list[Step], second: list[Step], end: str, take_over: str) -> GraspPerson:
    """The same with the simulated tabletop, the policy that ships, and a script at the leader."""
    person = GraspPerson(DrawnTable(), Picker(), second)

    def run(folder: Path, script: Script, **keys: str) -> Small:
        return watched(folder, arguments(folder, **keys), script)

    keys = {"panel__share": "always", "grasp__take_over": take_over, "grasp__time_limit_s": "15"}
    with tempfile.TemporaryDirectory() as folder, person.watching():
        play(Path(folder), steps, end, person, run, **keys)
        person.check()
    return person


def test_left_alone_it_does_what_it_was_told() -> None:
    """What the others begin with."""
    person = whole([Step(600, "resume")], "quit", planner__prompt=PROMPTS[1])
    assert person.small.code == 0, person.small.summary["stop_reason"]
    assert [person.table.in_tray(color) for color in ("red", "green")] == [True, False]
    assert [each["completed"] for each in person.small.summary["attempts"]] == [True]


CASES = {
    "steps": steps_of(9, 120, WHOLE, WHOLE, KEYS, HTTP),
    "second": steps_of(6, 150, PLANNER, POLICY, DONE, PUSHED, WHOLE),
    "end": ENDS,
    "take_over": st.sampled_from(["true", "true", "false"]),
    "limit_s": st.sampled_from(["12", "40"]),
    "on_failure": st.sampled_from(["hold", "hold", "stop"]),
}


def case(
    steps: list[Step],
    second: list[Step],
    end: str,
    take_over: str,
    limit_s: str,
    on_failure: str,
    disk: Path | None = None,
) -> GraspPerson:
    keys = {"grasp__take_over": take_over, "grasp__time_limit_s": limit_s, "planner__on_failure": on_failure}
    if disk is not None:
        keys |= {"recording__min_free_mib": "1", "recording__warn_free_mib": "2"}
    return whole(steps, end, second, disk, **keys)


@settings(max_examples=2, suppress_health_check=list(HealthCheck))
@given(**{**CASES, "limit_s": st.just("12"), "second": steps_of(6, 60, PLANNER, POLICY, PUSHED, WHOLE)})
def test_whatever_is_asked_for_a_few_times(**drawn: Any) -> None:
    case(**drawn)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(**CASES)
def test_whatever_is_asked_for_in_whatever_order(**drawn: Any) -> None:
    case(**drawn)


@pytest.mark.slow
@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(
    steps=steps_of(6, 90, WHOLE, KEYS, HTTP),
    second=steps_of(3, 150, PLANNER, WHOLE),
    end=ENDS,
    take_over=st.sampled_from(["true", "false"]),
)
def test_whatever_is_asked_for_on_the_simulated_tabletop(**drawn: Any) -> None:
    on_the_world(**drawn)


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(**{**CASES, "second": steps_of(9, 60, DISK, DISK, POLICY)})
def test_whatever_is_asked_for_while_the_disk_is_full_now_and_then(disk: Path, **drawn: Any) -> None:
    case(**drawn, disk=disk)
