"""Opens the configured mode with all that it needs beside the robot."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import anyio
from loguru import logger

from dexrun.episodes.recording import RunRecording
from dexrun.modes.mode import Mode
from dexrun.modes.one_episode import OneEpisode
from dexrun.robot import Robot
from dexrun.run_folder import RunFolder
from dexrun.run_record import RunRecord
from runtime.clock import NS_PER_S
from runtime.messages import TrackedMask
from runtime.teardown import boxed
from runtime.worker import InferenceWorker, Trial

T = TypeVar("T")

_STOP_S = 5.0


@contextlib.asynccontextmanager
async def open_mode(
    robot: Robot, folder: RunFolder, record: RunRecord, recording: RunRecording | None = None
) -> AsyncIterator[Mode]:
    """The configured mode, ready to run.

    Raises:
        PolicyError: the policy cannot be used; nothing has moved.
        PlannerError: the planner cannot be started.
    """
    if robot.settings.mode == "teleop":
        from dexrun.modes.teleop import open_teleop

        async with open_teleop(robot, record, recording) as mode:
            yield mode
    else:
        async with _open_grasp(robot, folder, recording) as mode:
            yield mode if recording is None else OneEpisode(mode, recording, robot.settings.planner.prompt)


@contextlib.asynccontextmanager
async def _open_grasp(robot: Robot, folder: RunFolder, recording: RunRecording | None) -> AsyncIterator[Mode]:
    from dexrun.modes.grasp import GraspMode
    from dexrun.modes.perception import Perception
    from dexrun.modes.planner_log import PlannerLog
    from dexrun.modes.policy_watch import PolicyWatch
    from planner.client import Planner

    settings, clock = robot.settings, robot.clock
    async with contextlib.AsyncExitStack() as stack:
        log = PlannerLog(folder.path)
        stack.callback(log.close)
        keep = log.record if recording is None else both(log.record, recording.exchange)
        planner = await stack.enter_async_context(Planner(settings.planner, clock, keep))
        segmenter, tracker = await clock.run_blocking(
            lambda: (settings.perception.segmenter.build(), settings.perception.tracker.build())
        )
        kept = [] if recording is None else [recording.mask]
        perception = Perception(robot.cameras[settings.grasp.head], segmenter, tracker, clock, *kept)
        perception.start()
        stack.push_async_callback(boxed, "perception", _STOP_S, perception.stop)
        worker = await _open_worker(robot, perception.newest, stack)
        mode = GraspMode(robot, planner, perception, worker, folder)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        tasks.start_soon(PolicyWatch(robot, worker).run, name="policy-watch")
        yield mode


async def _open_worker(
    robot: Robot, tracked: Callable[[str], TrackedMask | None], stack: contextlib.AsyncExitStack
) -> InferenceWorker:
    from dexrun.policies import build_for, policy_context
    from runtime.observer import Observer

    settings, clock = robot.settings, robot.clock
    context = policy_context(robot.model, robot.infos(), clock, robot.joints)
    state = robot.arm.states.newest()
    still = robot.model.middle() if state is None else state["position"]
    policy = await clock.run_blocking(
        lambda: build_for(settings.policy, context, robot.model.copy(), settings.grasp.arm, still)
    )
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
    trial = Trial(observer.trial, settings.grasp.attempt_timeout_s)
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
