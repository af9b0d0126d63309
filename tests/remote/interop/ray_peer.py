"""Runs where Ray is installed: a server whose policy is in two of Ray's replicas, asked by eight clients.

Prints what came back and which processes answered as JSON.
"""

import json
import os
import threading

import numpy as np

from dexrun.serve.options import ServeOptions
from dexrun.serve.ray_engine import ray_server
from runtime.interfaces import PolicyError
from tests.remote.support import ROBOT, EchoPolicy, Running, connected, expected, observation

CLIENTS, TIMES = 8, 6


class Tells(EchoPolicy):
    """Its last joint is its process, modulo a thousand; answers after a while, so that others wait."""

    def infer_batch(self, observations):
        threading.Event().wait(0.02)
        return [self.infer(o) for o in observations]

    def infer(self, observation):
        rows = super().infer(observation)
        rows[:, -1] = (os.getpid() % 1000) / 1000
        return rows


def main():
    options = ServeOptions(protocol="gr00t", engine="ray", replicas=2, batch_size=4, batch_delay_s=0.01)
    server = Running(ray_server(Tells, options, ROBOT)).start(300.0)
    wrong, processes, errors = [], set(), []

    def ask(client):
        with connected("gr00t", server.port) as remote:
            for tick in range(TIMES):
                made = observation(tick, seed=client)
                rows = remote.infer(made)
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


if __name__ == "__main__":
    main()
