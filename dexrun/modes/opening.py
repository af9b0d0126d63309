"""Opens the configured mode with all that it needs beside the robot."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import anyio
from loguru import logger

from dexrun.episodes.recording import RunRecording
from dexrun.modes.clip_watch import ClipWatch
from dexrun.modes.mode import Mode
from dexrun.modes.one_episode import OneEpisode
from dexrun.robot import Robot
from dexrun.run_folder import RunFolder
from dexrun.run_record import RunRecord
from runtime.clock import NS_PER_S
from runtime.messages import TrackedMask
from runtime.teardown import boxed
from runtime.worker import InferenceWorker, Trial

if TYPE_CHECKING:
    from dexrun.modes.grasp import GraspMode
    from dexrun.modes.perception import Perception
    from planner.client import Planner

T = TypeVar("T")

_STOP_S = 5.0
_ANSWER_S = 60.0
"""So long a policy's answer may take where episodes have no time limit."""


@contextlib.asynccontextmanager
async def open_mode(
    robot: Robot, folder: RunFolder, record: RunRecord, recording: RunRecording | None = None
) -> AsyncIterator[Mode]:
    """The configured mode, ready to run.

    Raises:
        PolicyError: the policy cannot be used; nothing has moved.
        PlannerError: the planner cannot be started.
        PerceptionError: a model that sees cannot be loaded; nothing has moved.
    """
    if robot.settings.mode == "teleop":
        from dexrun.modes.teleop import open_teleop

        async with open_teleop(robot, record, recording) as mode:
            yield mode
    elif robot.settings.mode == "rollout":
        async with _open_rollout(robot, folder, record, recording) as mode:
            yield mode
    else:
        async with _open_grasp(robot, folder, recording) as mode:
            record.asked = lambda: mode.prompt
            if recording is None or robot.settings.grasp.take_over:  # else every attempt is an episode
                yield mode
            else:
                yield OneEpisode(mode, recording, robot.settings.planner.prompt)


@contextlib.asynccontextmanager
async def _open_grasp(
    robot: Robot, folder: RunFolder, recording: RunRecording | None
) -> AsyncIterator[GraspMode]:
    from dexrun.episodes.controls import remote_controls
    from dexrun.modes.grasp import GraspMode

    settings = robot.settings
    corrected = settings.grasp.take_over
    episodes = recording.episodes if recording is not None and corrected else None
    async with contextlib.AsyncExitStack() as stack:
        planner = await _open_planner(robot, folder, recording, stack)
        perception = await _open_perception(robot, settings.grasp.head, recording, stack)
        worker = await _open_worker(robot, perception.newest, settings.grasp.attempt_timeout_s, stack)
        mode = GraspMode(robot, planner, perception, worker, folder, episodes)
        if not robot.clock.stepped:
            by = settings.recording if corrected else settings.recording.model_copy(update={"api": False})
            controls = remote_controls(None, by, mode, mode.jog, robot.stopping)
            await stack.enter_async_context(controls)
        await _watch(robot, worker, stack)
        yield mode


@contextlib.asynccontextmanager
async def _open_rollout(
    robot: Robot, folder: RunFolder, record: RunRecord, recording: RunRecording | None
) -> AsyncIterator[Mode]:
    """Planner and perception only where the policy needs a mask."""
    from dexrun.episodes.controls import remote_controls
    from dexrun.episodes.episodes import Episodes
    from dexrun.episodes.unrecorded import Unrecorded
    from dexrun.modes.finder import ObjectFinder
    from dexrun.modes.rollout import RolloutMode

    settings, clock = robot.settings, robot.clock
    options = settings.recording
    masked = [need.camera for need in settings.policy.needs_cameras() if need.mask]
    async with contextlib.AsyncExitStack() as stack:
        finder, tracked = None, _untracked
        if masked:
            planner = await _open_planner(robot, folder, recording, stack)
            perception = await _open_perception(robot, masked[0], recording, stack)
            finder, tracked = ObjectFinder(robot, planner, perception, masked[0]), perception.newest
        worker = await _open_worker(robot, tracked, options.episode_s or _ANSWER_S, stack)
        if recording is None:
            episodes = Episodes(
                Unrecorded(clock), options, now_ns=clock.now_ns, on_end=robot.realtime.collect
            )
        else:
            episodes = recording.episodes
        mode = RolloutMode(robot, episodes, worker, finder, alone=clock.stepped)
        record.asked = mode.asked
        if not clock.stepped:
            controls = remote_controls(episodes, options, mode, mode.jog, robot.stopping)
            await stack.enter_async_context(controls)
        await _watch(robot, worker, stack)
        try:
            yield mode
        finally:
            record.rollout = mode.results()


def _untracked(camera: str) -> TrackedMask | None:
    """No policy asks for a mask."""
    del camera
    return None


async def _open_planner(
    robot: Robot, folder: RunFolder, recording: RunRecording | None, stack: contextlib.AsyncExitStack
) -> Planner:
    from dexrun.modes.planner_log import PlannerLog
    from planner.client import Planner

    log = PlannerLog(folder.path)
    stack.callback(log.close)
    keep = both(log.record, robot.shown.exchange)
    if recording is not None:
        keep = both(keep, recording.exchange)
    return await stack.enter_async_context(Planner(robot.settings.planner, robot.clock, keep))


async def _open_perception(
    robot: Robot, camera: str, recording: RunRecording | None, stack: contextlib.AsyncExitStack
) -> Perception:
    from dexrun.modes.perception import Perception
    from dexrun.modes.perception_parts import built
    from dexrun.modes.sight_thread import Redetection

    options, clock = robot.settings.perception, robot.clock
    parts, fallback = await clock.run_blocking(lambda: built(options))
    kept = [] if recording is None else [recording.mask]
    perception = Perception(
        robot.cameras[camera],
        parts,
        clock,
        *kept,
        fallback=fallback,
        timeout_s=options.timeout_s,
        redetection=Redetection(options.lost_frames, options.search_s),
        count=lambda kind: robot.faults.log.count("perception", kind),
        info=robot.infos()[camera],  # a copy: the driver is another thread's
    )
    robot.shown.tracked = perception.newest
    perception.start()
    stack.push_async_callback(boxed, "perception", _STOP_S, perception.stop)
    return perception


async def _watch(robot: Robot, worker: InferenceWorker, stack: contextlib.AsyncExitStack) -> None:
    from dexrun.modes.policy_watch import PolicyWatch

    tasks = await stack.enter_async_context(anyio.create_task_group())
    stack.callback(tasks.cancel_scope.cancel)
    tasks.start_soon(PolicyWatch(robot, worker).run, name="policy-watch")
    tasks.start_soon(ClipWatch(robot).run, name="clip-watch")


async def _open_worker(
    robot: Robot,
    tracked: Callable[[str], TrackedMask | None],
    attempt_s: float,
    stack: contextlib.AsyncExitStack,
) -> InferenceWorker:
    from dexrun.policies import build_for, policy_context
    from runtime.interfaces import PolicyError
    from runtime.observer import Observer
    from runtime.tip import lacking

    settings, clock = robot.settings, robot.clock
    context = policy_context(robot.model, robot.infos(), clock, robot.joints)
    state = robot.arm.states.newest()
    still = robot.model.middle() if state is None else state["position"]
    policy = await clock.run_blocking(
        lambda: build_for(settings.policy, context, robot.model.copy(), settings.working_arm, still)
    )
    for name in policy.spec.masks if policy.spec.tip else ():
        if what := lacking(robot.infos()[name]):
            raise PolicyError(f"policy.keys.tip_camera = {name!r}: the camera has no {what}")
    observer = Observer(
        policy.spec,
        robot.arm,
        robot.cameras,
        robot.force,
        tracked,
        round(settings.grasp.stale_camera_s * NS_PER_S),
        clock,
        robot.model.copy() if policy.spec.end_effector else None,
    )
    latency_s = settings.policy.simulated_latency_s if clock.stepped else None
    discrete = tuple(map(robot.model.names.index, settings.policy.discrete))
    task = settings.recording.task if settings.mode == "rollout" else ""
    ready_s = settings.policy.ready_timeout_s
    limit = "recording.episode_s" if settings.mode == "rollout" else "grasp.attempt_timeout_s"
    trial = Trial(lambda: replace(observer.trial(), instruction=task), attempt_s, ready_s, limit)
    worker = InferenceWorker(
        policy,
        observer,
        clock,
        latency_s,
        rate_hz=settings.policy.rate_hz,
        discrete=discrete,
        trial=trial,
    )
    worker.start()
    stack.push_async_callback(_end_worker, worker)
    await worker.ready()
    logger.info("policy {} is ready", worker.report.spec.name)
    return worker


async def _end_worker(worker: InferenceWorker) -> None:
    worker.stop()
    await boxed("the inference thread (the policy does not return)", _STOP_S, worker.join)


def both(first: Callable[[T], None], second: Callable[[T], None]) -> Callable[[T], None]:
    """Tell both."""

    def tell(what: T) -> None:
        first(what)
        second(what)

    return tell
