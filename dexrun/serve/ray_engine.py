"""The same policy class under Ray Serve: replicas and batching are Ray's."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from dexrun.config.serve_options import ServeOptions
from dexrun.serve.engine import ask
from dexrun.serve.server import PolicyServer
from policies.remote.serving.engine import Answer
from policies.remote.serving.metrics import Metrics
from runtime.clock import NS_PER_S, RealClock
from runtime.interfaces import Policy, PolicyError, policy_error
from runtime.joints import JointLayout
from runtime.messages import Observation

NO_RAY = "engine 'ray' needs the package ray: pip install 'dexrun[ray]'"


class Replica:
    """One policy in one of Ray's processes."""

    def __init__(self, make: Callable[[], Policy]) -> None:
        self._policy = make()
        self._policy.warm_up()

    def infer_each(self, batch: Sequence[Sequence[Observation]]) -> list[list[Answer] | str]:
        """For each request its answers or, if it got none, why: one request's fault is not the others'."""
        sizes = [len(observations) for observations in batch]
        try:
            answers = ask(self._policy, [o for observations in batch for o in observations])
        except Exception:
            return [self._alone(observations) for observations in batch]
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        return [answers[end - size : end] for end, size in zip(ends, sizes, strict=True)]

    def _alone(self, observations: Sequence[Observation]) -> list[Answer] | str:
        try:
            return ask(self._policy, observations)
        except PolicyError as error:
            return str(error)
        except Exception as error:
            return f"the policy raised {type(error).__name__}"


def _deployed(serve: Any, options: ServeOptions) -> Any:
    """The class that Ray Serve runs, with Ray's own batching around `Replica`."""

    async def infer(self: Any, batch: list[Sequence[Observation]]) -> list[Any]:
        return await asyncio.to_thread(self.replica.infer_each, batch)

    def init(self: Any, make: Callable[[], Policy]) -> None:
        self.replica = Replica(make)

    batched = serve.batch(max_batch_size=options.batch_size, batch_wait_timeout_s=options.batch_delay_s)
    return type("DexrunPolicy", (), {"__init__": init, "infer": batched(infer)})


class RayEngine:
    """`Engine` over a Ray Serve application of `options.replicas` replicas.

    Requests of all clients go to whichever replica is free, so a policy that remembers an episode cannot be
    served this way. Ray Serve batches on the replica, up to `batch_size` after `batch_delay_s`.

    On a cluster at `ray_address` this is one application beside others, which are left alone when it ends; a
    local Ray is started for it and ends with it.
    """

    isolated = False

    def __init__(self, make: Callable[[], Policy], options: ServeOptions, metrics: Metrics) -> None:
        self._make = make
        self._options = options
        self._metrics = metrics
        self._handle: Any = None
        self._application = f"dexrun-{uuid.uuid4().hex[:8]}"
        self._connected = False
        self._clock = RealClock()

    def start(self) -> None:
        """See `Engine`; also raises if Ray is not installed or not reached."""
        try:
            import ray
            from ray import serve
        except ModuleNotFoundError:
            raise PolicyError(NO_RAY) from None
        try:
            if not ray.is_initialized():
                self._connect(ray, serve)
            deployment = serve.deployment(
                _deployed(serve, self._options),
                num_replicas=self._options.replicas,
                max_ongoing_requests=4 * self._options.batch_size,
            )
            self._handle = serve.run(deployment.bind(self._make), name=self._application, route_prefix=None)
        except Exception as error:  # Ray says with a plain one that its node did not come up
            with suppress(Exception):
                self.stop()
            raise PolicyError(f"Ray Serve did not start: {_line(error)}") from None

    def _connect(self, ray: Any, serve: Any) -> None:
        """To the cluster that was named, or to a new one without what nobody asked for.

        Ray gives a node 30 s to come up and its HTTP proxies 60 s, and no option says more. The dashboard and
        the proxies are most of that work; the proxies would listen on port 8000, which is openpi's.
        """
        quiet = {"log_to_driver": False, "configure_logging": False}
        if self._options.ray_address:
            ray.init(address=self._options.ray_address, **quiet)
            self._connected = True
            return
        # Ray's workers are nice by 15 unless told otherwise, and get nothing beside a busy machine's others.
        os.environ.setdefault("RAY_worker_niceness", "0")
        ray.init(address="local", include_dashboard=False, **quiet)  # no address: any Ray that runs here
        self._connected = True
        serve.start(proxy_location="Disabled")

    async def infer(self, observations: Sequence[Observation], client: str) -> list[Answer]:
        """See `Engine`."""
        del client
        started = self._clock.now_ns()
        try:
            result = await self._handle.infer.remote(list(observations))
        except Exception as error:  # a replica died, or the cluster has gone
            raise PolicyError(f"Ray Serve did not answer: {type(error).__name__}: {_line(error)}") from error
        self._metrics.inference_s.observe((self._clock.now_ns() - started) / NS_PER_S)
        self._metrics.batch_size.observe(len(observations))
        if isinstance(result, str):
            raise policy_error(result)
        return [Answer(*answer) for answer in result]

    async def reset(self, client: str) -> None:
        """Nothing is kept between requests."""

    def forget(self, client: str) -> None:
        """Nothing is kept between requests."""

    def stop(self) -> None:
        """See `Engine`."""
        import ray
        from ray import serve

        if self._connected and not self._options.ray_address:
            serve.shutdown()
        elif ray.is_initialized():
            serve.delete(self._application)
        if self._connected:
            ray.shutdown()


def _line(error: Exception) -> str:
    """The last line of `error`, which says what happened; what is above it is Ray's trace."""
    return (str(error).strip().splitlines() or [""])[-1].strip()[:300]


def ray_server(make: Callable[[], Policy], options: ServeOptions, joints: JointLayout) -> PolicyServer:
    """A server that infers in Ray's replicas.

    Raises:
        PolicyError: the policy cannot be made.
    """
    metrics = Metrics()
    spec = make().spec
    return PolicyServer(RayEngine(make, options, metrics), options, joints, spec, metrics, RealClock())
