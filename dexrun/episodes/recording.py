"""Puts the recorder together with the robot: which rings, which names, what is written into every file."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from dexrun.config.load import dump
from dexrun.config.settings import Settings
from dexrun.episodes.episodes import EpisodeError, Episodes
from dexrun.episodes.force_zero import ForceZero
from dexrun.robot import Robot
from dexrun.run_folder import EPISODES, episodes_of
from dexrun.run_record import RunRecord
from drivers.arms.choice import remembered
from runtime.body import RobotDescription
from runtime.faults import FaultLog
from runtime.joints import JointLayout
from runtime.messages import ActionChunk, DeviceError, FaultKind, TrackedMask
from runtime.recording import schemas
from runtime.recording.mcap_file import OPEN_SUFFIX, Channel
from runtime.recording.recorder import Recorder
from runtime.recording.repair import mend_all
from runtime.recording.takes import Take
from runtime.recording.tracks import (
    Track,
    camera_track,
    chunk_message,
    device_topic,
    info_channel,
    info_message,
    mask_channel,
    rows_track,
    tip_channel,
)
from runtime.snapshots import to_json
from runtime.teardown import boxed

if TYPE_CHECKING:
    from dexrun.run_folder import RunFolder
    from planner.exchange import Exchange

CHUNKS, CONTROL, PLANNER = "/chunks", "/control", "/planner"
_CLOSE_S = 20.0
_NAME = re.compile(r"episode_(\d{6,})\.mcap")


def mend_runs(runs: Path, *more: Path) -> None:
    """Mend what crashes left in any run, and say what was found."""
    there = {path.parent for path in runs.glob(f"*/{EPISODES}/*.mcap{OPEN_SUFFIX}")}
    own = {folder for folder in there if not (folder.is_symlink() or folder.parent.is_symlink())}
    mended, refused = mend_all(sorted(own | set(more)))
    for each in mended:
        logger.warning("recording: {}", each)
    for line in refused:
        logger.error("recording: {}", line)


@contextlib.asynccontextmanager
async def open_recording(
    robot: Robot, settings: Settings, folder: RunFolder, record: RunRecord
) -> AsyncIterator[RunRecording | None]:
    """The recorder, ready to begin an episode; ``None`` if the mode is not recorded.

    `settings` are as configured; the robot's own have the real addresses of what is simulated.

    Raises:
        DeviceError: the folder cannot be written.
    """
    if not settings.recording.wanted(settings.mode):
        yield None
        return
    try:
        place, first = await robot.clock.run_blocking(lambda: place_of(settings, folder.path))
        recording = RunRecording(robot, settings, place, first)
    except OSError as error:
        where = settings.recording.resume or folder.path
        raise DeviceError(
            "recording", FaultKind.NOT_WRITABLE, str(where), error.strerror or str(error)
        ) from None
    episodes = recording.episodes
    try:
        yield recording
    finally:
        counted = episodes.recorded
        if not await boxed("recording", _CLOSE_S, recording.close):
            logger.error("recording: the disk does not take the rest; it is mended at the next start")
        record.recording = episodes.summary()
        if episodes.recorded < counted:
            record.lack(f"of {counted - episodes.recorded} episodes nothing could be written")


def place_of(settings: Settings, run: Path) -> tuple[Path, int]:
    """Where episodes of `run` go, and the number of the next one.

    Raises:
        OSError: nothing can be written there.
    """
    resume, own = settings.recording.resume, run / EPISODES
    if resume is None:
        mend_runs(settings.runs)
        own.mkdir(exist_ok=True)
        return own, 0
    try:
        place = episodes_of(resume)
    except ValueError as error:
        raise OSError(str(error)) from None
    mend_runs(settings.runs, place)
    place.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):  # not every file system has links
        own.symlink_to(os.path.relpath(place, run.resolve()))
    taken = [int(m[1]) for path in place.iterdir() if (m := _NAME.match(path.name))]
    return place, max(taken, default=-1) + 1


class RunRecording:
    """The recorder of one run.

    Attributes:
        episodes: what may be asked for.
    """

    def __init__(self, robot: Robot, settings: Settings, folder: Path, first: int) -> None:
        self._robot = robot
        self._clock = robot.clock
        self._gaps = _Gaps(robot.faults.log)
        self._zero = ForceZero(robot)
        self._infos = robot.infos()
        options = robot.settings.recording
        self.recorder = Recorder(
            robot.clock,
            options,
            folder,
            _tracks(robot),
            self._notes(),
            metadata(robot, settings),
            [self._gaps, self._zero],
        )
        self.episodes = Episodes(
            self.recorder, options, first, self._begun, robot.clock.now_ns, robot.realtime.collect
        )
        robot.control.tell(self)
        self.recorder.start()

    def _notes(self) -> list[Channel]:
        infos = [
            replace(info_channel(name), metadata=schemas.info_metadata(info))
            for name, info in self._infos.items()
        ]
        tracked = self._infos if self._robot.settings.mode != "teleop" else {}
        masks = [mask_channel(name) for name in tracked]
        tips = [channel for info in tracked.values() if (channel := tip_channel(info)) is not None]
        return [
            *infos,
            *masks,
            *tips,
            Channel(CHUNKS, schemas.CHUNK),
            Channel(CONTROL, replace(schemas.EVENT, name="dexrun.Control")),
            Channel(PLANNER, replace(schemas.EVENT, name="dexrun.Exchange")),
        ]

    def _begun(self, take: Take) -> None:
        """What is written once, at the beginning of an episode."""
        for name, info in self._infos.items():
            wall_ns = take.start_ns + self.recorder.wall_offset_ns
            self.recorder.put(f"/cameras/{name}/info", take.start_ns, info_message(info, wall_ns))
        control, safety = self._robot.control.snapshot(), self._robot.safety.snapshot()
        self.recorder.put_later(
            CONTROL,
            take.start_ns,
            lambda: schemas.event("snapshot", {"control": to_json(control), "safety": to_json(safety)}),
        )
        self._zero.begin()

    def ticked(self) -> None:
        """A tick's work is done: look into the rings while the loop rests."""
        self.recorder.nudge()

    def noted(self, kind: str, values: Mapping[str, Any]) -> None:
        """What the control loop was told, for a replay; on the loop, so nothing is encoded here."""
        if self.recorder.take is None:
            return
        now_ns = self._clock.now_ns()
        if kind == "chunk":
            chunk: ActionChunk = values["chunk"]
            after = values["after_tick"]
            self.recorder.put_later(CHUNKS, now_ns, lambda: chunk_message(chunk, now_ns, after))
        else:
            self.recorder.put_later(CONTROL, now_ns, lambda: schemas.event(kind, values))

    def exchange(self, exchange: Exchange) -> None:
        """Keep what the planner was asked and said. On any thread."""
        values = {
            "task": exchange.task,
            "attempt": exchange.attempt,
            "model": exchange.model,
            "asked_ns": exchange.asked_ns,
            "latency_s": exchange.latency_s,
            "prompt": exchange.prompt,
            "reply": exchange.reply,
            "error": exchange.error,
        }
        self.recorder.put(PLANNER, self._clock.now_ns(), schemas.event("exchange", values))

    def mask(self, mask: TrackedMask) -> None:
        """Keep where the instruction's object is. On any thread."""
        self.recorder.put_mask(mask)

    def end(self) -> None:
        """The run is over: an episode that is still on ends here, and counts like any other."""
        with contextlib.suppress(EpisodeError):  # none is on
            self.episodes.stop(reason="the run ended")

    async def close(self) -> None:
        """End and finish everything."""
        self.end()
        await self.recorder.close()


def _tracks(robot: Robot) -> list[Track]:
    options = robot.settings.recording
    tracks = [camera_track(name, camera.frames, options) for name, camera in robot.cameras.items()]
    for name, arm in robot.arms.items():
        tracks.append(rows_track(name, f"{device_topic(name)}/state", "dexrun.ArmState", arm.states))
        tracks.append(rows_track(name, f"{device_topic(name)}/sent", "dexrun.Goal", arm.sent))
        tracks.append(rows_track(name, f"{device_topic(name)}/health", "dexrun.Health", arm.health))
    for name, leader in robot.leaders.items():
        tracks.append(rows_track(name, f"{device_topic(name)}/state", "dexrun.ArmState", leader.states))
    if robot.force is not None:
        tracks.append(rows_track("force", "/force", "dexrun.Force", robot.force.samples))
    tracks.append(rows_track("control", "/ticks", "dexrun.Tick", robot.records))
    return tracks


def metadata(robot: Robot, settings: Settings) -> dict[str, dict[str, str]]:
    """Metadata records of every file of a run (`described`)."""
    arms = (*robot.arms.items(), *robot.leaders.items())
    calibration = {name: dict(arm.calibration) for name, arm in arms}
    return described(settings, robot.description, robot.model.layout, calibration)


def described(
    settings: Settings, robot: RobotDescription, joints: JointLayout, calibration: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    """Metadata records, all values JSON but the version: the robot, its calibration by arm, `settings`."""
    from importlib.metadata import version

    cameras = {
        name: {"width": config.width, "height": config.height, "fps": config.fps, "driver": config.driver}
        for name, config in settings.cameras.items()
    }
    force = settings.force
    about = {
        **remembered(settings.followers(), robot),
        "joint_names": list(joints.names),
        "ranges_rad": joints.ranges.tolist(),
        "units": joints.units,
        "control_rate_hz": settings.control.rate_hz,
        "state_rate_hz": min(arm.state_rate_hz for arm in settings.arm_tables().values()),
        "cameras": cameras,
        "force": None if force is None else {"channels": force.channels, "rate_hz": force.rate_hz},
        "mode": settings.mode,
        "driven": settings.mode == "rollout" or (settings.mode == "grasp" and settings.grasp.take_over),
    }
    return {
        "robot": {key: json.dumps(value) for key, value in about.items()},
        "calibration": {name: json.dumps(value) for name, value in calibration.items()},
        "config": {"json": dump(settings)},
        "dexrun": {"version": version("dexrun")},
    }


class _Gaps:
    """Turns the fault log's gaps into events; called on the recorder's thread."""

    def __init__(self, log: FaultLog) -> None:
        self._log = log
        self._begun = 0
        self._open: dict[int, Any] = {}

    def __call__(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        gaps = self._log.gaps
        if not self._open and len(gaps) == self._begun:
            return ()
        events: list[tuple[str, Mapping[str, Any]]] = []
        for number in range(self._begun, len(gaps)):
            gap = gaps[number]
            self._open[number] = gap
            events.append(("fault", {"device": gap.device, "fault": gap.kind, "from_ns": gap.from_ns}))
        self._begun = len(gaps)
        for number, gap in list(self._open.items()):
            if gap.to_ns is not None:
                del self._open[number]
                values = {"device": gap.device, "fault": gap.kind, "from_ns": gap.from_ns, "to_ns": gap.to_ns}
                events.append(("fault_gap", values))
        return events
