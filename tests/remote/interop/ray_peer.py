"""Runs where Ray is installed, and prints what came of it as JSON.

Without an argument: a server whose policy is in two of Ray's replicas, asked by eight clients. With
``neighbours``: a cluster with somebody else's application, on and beside which engines of ours come and go.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading

import numpy as np

from dexrun.config.serve_options import ServeOptions
from dexrun.serve.ray_engine import RayEngine, ray_server
from policies.remote.serving.metrics import Metrics
from runtime.interfaces import PolicyError
from tests.remote.support import ROBOT, EchoPolicy, Running, connected, expected, observation

CLIENTS, TIMES = 8, 6


class Tells(EchoPolicy):
    """Its last joint is its process, modulo a thousand; answers after a while, so that others wait."""

    def infer_batch(self, observations):
        threading.Event().wait(0.02)
        return [self.infer(o) for o in observations]

    def infer(self, observation):
        answer = super().infer(observation)
        answer.rows[:, -1] = (os.getpid() % 1000) / 1000
        return answer


def main():
    options = ServeOptions(protocol="gr00t", engine="ray", replicas=2, batch_size=4, batch_delay_s=0.01)
    server = Running(ray_server(Tells, options, ROBOT)).start(300.0)
    wrong, processes, errors = [], set(), []

    def ask(client):
        with connected("gr00t", server.port) as remote:
            for tick in range(TIMES):
                made = observation(tick, seed=client)
                rows = remote.infer(made).rows
                processes.add(round(float(rows[0, -1]) * 1000))
                off = np.abs(rows[:, :-1] - expected(made)[:, :-1]).max()
                if off > 1e-5:
                    wrong.append(float(off))
            for instruction in ("refuse", "raise"):
                try:
                    remote.infer(observation(instruction=instruction))
                except PolicyError as error:
                    errors.append(str(error).split(": ", 2)[-1])

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = server.server.service.metrics.text()
    server.stop()
    answered = next(line for line in text.splitlines() if 'endpoint="get_action"' in line)
    out = {"wrong": wrong, "processes": len(processes), "errors": sorted(set(errors)), "answered": answered}
    print("RESULT " + json.dumps(out), flush=True)


class Theirs:
    """Somebody else's application."""

    def __call__(self):
        return "theirs"


def neighbours():
    import ray
    from ray import serve

    started = ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    cluster = started.address_info["gcs_address"]
    serve.start(proxy_location="Disabled")
    theirs = serve.deployment(Theirs, ray_actor_options={"num_cpus": 0}).bind()
    handle = serve.run(theirs, name="theirs", route_prefix=None)
    guests = []
    for address in (cluster, ""):
        command = [sys.executable, __file__, "guest", address]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        guests.append(done.stdout.splitlines()[-1] if done.stdout else done.stderr[-1000:])
    left = sorted(serve.status().applications)
    out = {"guests": guests, "left": left, "answer": handle.remote().result(timeout_s=60)}
    print("RESULT " + json.dumps(out), flush=True)
    serve.shutdown()
    ray.shutdown()


def guest(address):
    """One engine's life; prints the applications that it has beside itself, and what a dead one says."""
    from ray import serve

    options = ServeOptions(protocol="gr00t", engine="ray", replicas=1, ray_address=address)
    engine = RayEngine(Tells, options, Metrics())
    engine.start()
    beside = sorted(name for name in serve.status().applications if not name.startswith("dexrun-"))
    (answer,) = asyncio.run(engine.infer([observation(1)], "one"))
    serve.delete(engine._application)
    try:
        asyncio.run(engine.infer([observation(1)], "one"))
    except PolicyError as error:
        said = str(error).split(":")[0]
    engine.stop()
    print(json.dumps([len(answer.rows), beside, said]), flush=True)


if __name__ == "__main__":
    {"": main, "neighbours": neighbours, "guest": lambda: guest(sys.argv[2])}["".join(sys.argv[1:2])]()
