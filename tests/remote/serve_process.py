"""A server in a process of its own, to be killed and frozen: protocol and port as arguments."""

from __future__ import annotations

import sys
import threading
from typing import Any

from dexrun.config.serve_options import ServeOptions
from dexrun.serve.server import local_server
from runtime.clock import RealClock
from runtime.messages import Observation, PolicyAnswer
from tests.remote.support import ROBOT, EchoPolicy


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class HangingPolicy(EchoPolicy):
    """Says when it is asked; never answers an observation for step 666, and 777 only after its input."""

    def infer(self, observation: Observation) -> PolicyAnswer:
        say("asked")
        if observation.step == 666:
            threading.Event().wait()
        if observation.step == 777:
            sys.stdin.readline()
        return super().infer(observation)


def main(protocol: Any, port: int) -> None:
    server = local_server(HangingPolicy(), ServeOptions(protocol=protocol, port=port, drain_s=20.0), ROBOT)
    RealClock().run(server.run, lambda: say(server.address), True)
    say("ended")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
