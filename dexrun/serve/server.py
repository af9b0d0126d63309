"""The server's life: warm the policy up, listen, answer until told to stop, answer what is in flight."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable

import anyio
from anyio.abc import TaskStatus
from loguru import logger

from dexrun.config.serve_options import ServeOptions
from dexrun.serve.engine import LocalEngine
from dexrun.serve.metrics_page import MetricsPage
from policies.remote.serving.engine import Engine
from policies.remote.serving.fronts import make_front
from policies.remote.serving.metrics import Metrics
from policies.remote.serving.service import Service
from runtime.clock import Clock, RealClock
from runtime.interfaces import Policy, PolicySpec
from runtime.joints import JointLayout


class PolicyServer:
    """One policy behind one protocol.

    Args:
        engine: answers observations; started and stopped here.
        options: the ``[serve]`` table.
        joints: the robot's.
        spec: of the policy.
    """

    def __init__(
        self,
        engine: Engine,
        options: ServeOptions,
        joints: JointLayout,
        spec: PolicySpec,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._options = options
        self._make: Callable[[], Service] = lambda: Service(options, engine, joints, spec, metrics, clock)
        self.service: Service | None = None
        self.address = ""
        self.metrics_address = ""

    async def run(self, ready: Callable[[], None], signals: bool = False) -> None:
        """Serve until stopped; `ready` is called once connections are taken.

        Raises:
            PolicyError: the policy cannot be warmed up, the token is not there, or the keys do not suit the
                protocol.
            OSError: the address is taken.
        """
        self.service = service = self._make()
        front = make_front(service)
        await anyio.to_thread.run_sync(self._engine.start)
        try:
            async with contextlib.AsyncExitStack() as stack:
                await front.open()
                stack.push_async_callback(front.close)
                await self._open_metrics(service, stack)
                self.address = front.address
                async with anyio.create_task_group() as group:
                    if signals:
                        await group.start(_stop_on_signal, service)
                    ready()  # whoever reads it may send a signal at once
                    await service.stopping_asked.wait()
                    await front.refuse_new()
                    if not await service.drained():
                        logger.warning(
                            "stopping with requests unanswered after {} s", service.options.drain_s
                        )
                    group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._engine.stop)

    async def _open_metrics(self, service: Service, stack: contextlib.AsyncExitStack) -> None:
        if self._options.metrics_port < 0:
            return
        page = MetricsPage(service.metrics)
        await page.open(self._options.host, self._options.metrics_port)
        stack.push_async_callback(page.close)
        self.metrics_address = page.address

    def stop(self) -> None:
        """Ask the server to end, on its loop."""
        if self.service is not None:
            self.service.kill()


async def _stop_on_signal(service: Service, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        task_status.started()
        async for number in received:
            logger.info("{}: answering what is in flight, then stopping", signal.Signals(number).name)
            service.kill()


def local_server(
    policy: Policy,
    options: ServeOptions,
    joints: JointLayout,
    clock: Clock | None = None,
    fresh: Callable[[], Policy] | None = None,
) -> PolicyServer:
    """A server that infers in this process; `fresh` as `LocalEngine` takes it."""
    clock = clock if clock is not None else RealClock()
    metrics = Metrics()
    engine = LocalEngine(
        policy, clock, metrics, options.batch_size, options.batch_delay_s, fresh, options.max_policies
    )
    return PolicyServer(engine, options, joints, policy.spec, metrics, clock)
