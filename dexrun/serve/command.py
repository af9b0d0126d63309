"""``dexrun serve --config config.toml --protocol gr00t --port N``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dexrun.config.sources import ConfigError
from dexrun.exit_codes import BAD_CONFIGURATION, OK, STOPPED
from dexrun.printing import complain, say

if TYPE_CHECKING:
    from dexrun.config.serve_options import ServeOptions
    from dexrun.config.settings import Settings
    from dexrun.serve.server import PolicyServer
    from runtime.interfaces import Policy
    from runtime.parts import PolicyTable

SHORT = ("protocol", "host", "port", "engine", "replicas")
HELP = """\
usage: dexrun serve --config config.toml --protocol gr00t|lerobot|openpi|act [--port N]
                    [--TABLE.KEY VALUE ...]

Puts the configuration's policy behind a protocol that robots already speak. Loopback only, unless
--serve.token_env names the environment variable with a token, or --insecure is given.

  --protocol P     which protocol
  --host ADDRESS   address to bind (default 127.0.0.1)
  --port N         port to bind; 0, the default, takes a free one and says which
  --engine ray     infer in Ray Serve's replicas instead of here; --replicas N of them
  --insecure       serve other machines without a token

examples:
  dexrun serve --config docs/examples/remote-policy.toml --protocol gr00t --port 5555
  dexrun serve --config config.toml --protocol act --policy.type act --policy.checkpoint act.safetensors
"""


def expand(arguments: Sequence[str]) -> list[str]:
    """``--port 5555`` means ``--serve.port 5555``; ``--insecure`` needs no value."""
    out: list[str] = []
    for word in arguments:
        name, equals, value = word.partition("=")
        if word == "--insecure":
            out += ["--serve.insecure", "true"]
        elif name[:2] == "--" and name[2:] in SHORT:
            out.append(f"--serve.{name[2:]}{equals}{value}")
        else:
            out.append(word)
    return out


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    if not arguments or "--help" in arguments or "-h" in arguments:
        say(HELP)
        return OK if arguments else BAD_CONFIGURATION
    from dexrun.config.load import load

    try:
        settings = load(expand(arguments))
    except ConfigError as error:
        return _fail(str(error), BAD_CONFIGURATION)
    return run(settings)


def _fail(message: str, code: int) -> int:
    complain("".join(f"dexrun serve: {line}\n" for line in message.splitlines()))
    return code


def run(settings: Settings) -> int:
    """Serve the policy of `settings` as its ``[serve]`` table says; the exit code."""
    from runtime.clock import RealClock
    from runtime.interfaces import PolicyError
    from runtime.realtime import keep_freed_memory

    if settings.realtime.keep_memory:
        with contextlib.suppress(AttributeError, OSError):  # slower, and no less right
            keep_freed_memory()
    try:
        _check_packages(settings)
        complain(f"dexrun serve: making the policy {served(settings).type} ready; this may take a while\n")
        server = _server(settings)
        RealClock().run(server.run, _announce(settings, server), True)
    except PolicyError as error:
        return _fail(str(error), BAD_CONFIGURATION)
    except OSError as error:
        return _fail(f"cannot listen: {error}", STOPPED)
    return OK


def _check_packages(settings: Settings) -> None:
    """Whatever the policy and the protocol import is there, or there is one line that says how to get it."""
    from policies.remote.serving.options import CLIENT_OPTIONS
    from runtime.packages import need

    served(settings).check_packages()
    protocol = settings.serve.protocol
    client = CLIENT_OPTIONS[protocol]
    need(f"protocol {protocol!r}", (*client.packages, "prometheus_client"), client.extra)


def _announce(settings: Settings, server: PolicyServer) -> Callable[[], None]:
    def announce() -> None:
        metrics = f", metrics at {server.metrics_address}" if server.metrics_address else ""
        name = served(settings).type
        say(f"serving {name} as {settings.serve.protocol} at {server.address}{metrics}\n")
        sys.stdout.flush()

    return announce


def _server(settings: Settings) -> PolicyServer:
    from dexrun.serve.server import local_server
    from dexrun.simulation.calibration import known_joints
    from runtime.interfaces import PolicyError

    joints = known_joints(settings)
    make, options = policy_maker(settings), described(settings)
    own = served(settings).remembers_episode
    if options.engine == "ray":
        if own:
            name = served(settings).type
            raise PolicyError(f"policy {name!r} remembers the episode: engine 'ray' cannot serve it")
        from dexrun.serve.ray_engine import ray_server

        return ray_server(make, options, joints)
    return local_server(make(), options, joints, fresh=make if own else None)


def served(settings: Settings) -> PolicyTable:
    """The table of the policy to serve."""
    return settings.serve.policy or settings.policy


def described(settings: Settings) -> ServeOptions:
    """The ``[serve]`` table. A file that also tells a client what to send is not asked for it twice."""
    options = settings.serve
    given = options.model_dump(include={"keys", "units"})
    return options.model_copy(
        update={key: value for key, value in settings.policy.as_served().items() if given[key] is None}
    )


def policy_maker(settings: Settings) -> Callable[[], Policy]:
    """What makes the configured policy, without any device.

    Raises:
        PolicyError: it cannot be made here.
    """
    from dexrun.policies import build_policy, policy_context
    from dexrun.simulation.calibration import known_joints
    from dexrun.simulation.cameras import simulated_cameras
    from drivers.arms.choice import robot_of_all
    from runtime.clock import RealClock
    from runtime.interfaces import PolicyError

    table = served(settings)
    if table.behind_a_server:
        raise PolicyError(
            f"policy.type = {table.type!r} is itself behind a server; serve a local one, or name one in "
            "[serve.policy]"
        )
    if table.not_served:
        raise PolicyError(f"policy.type = {table.type!r} is not served: {table.not_served}")
    infos = simulated_cameras(settings)
    for need in table.needs_cameras():
        if need.key.endswith("tip_camera"):
            continue  # where the object is comes from the client
        if need.calibration and need.camera not in infos:
            raise PolicyError(
                f"policy {table.type!r} needs the calibration of camera {need.camera!r}, which only the "
                "robot's own process has (the simulated tabletop's is known); it needs no GPU: run it there"
            )
    robot = robot_of_all(settings.followers())
    joints = known_joints(settings)
    told = False

    def make() -> Policy:
        nonlocal told
        policy = build_policy(table, policy_context(robot.model(), infos, RealClock(), joints))
        if (steps := policy.spec.history_steps) > 1 and not told:  # no protocol has them
            told = True  # each client may have one of its own
            complain(
                f"dexrun serve: policy {table.type!r} looks at {steps} instants, and a client sends the "
                "present alone, which counts for all of them: it sees no motion\n"
            )
        return policy

    return make
