"""``dexrun serve --config config.toml --protocol gr00t --port N``."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from dexrun.config.sources import ConfigError
from dexrun.exit_codes import BAD_CONFIGURATION, OK, STOPPED

if TYPE_CHECKING:
    from dexrun.config.serve_options import ServeOptions
    from dexrun.config.settings import PolicyConfig, Settings
    from dexrun.serve.server import PolicyServer
    from runtime.interfaces import CameraDriver, Policy
    from runtime.messages import CameraInfo

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
        sys.stdout.write(HELP)
        return OK if arguments else BAD_CONFIGURATION
    from dexrun.config.load import load

    try:
        settings = load(expand(arguments))
    except ConfigError as error:
        return _fail(str(error), BAD_CONFIGURATION)
    return run(settings)


def _fail(message: str, code: int) -> int:
    sys.stderr.write("".join(f"dexrun serve: {line}\n" for line in message.splitlines()))
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
        server = _server(settings)
        RealClock().run(server.run, _announce(settings, server), True)
    except PolicyError as error:
        return _fail(str(error), BAD_CONFIGURATION)
    except OSError as error:
        return _fail(f"cannot listen: {error}", STOPPED)
    return OK


def _check_packages(settings: Settings) -> None:
    """Whatever the policy and the protocol import is there, or there is one line that says how to get it."""
    from policies.packages import need
    from policies.remote.serving.options import CLIENT_OPTIONS

    served(settings).check_packages()
    protocol = settings.serve.protocol
    client = CLIENT_OPTIONS[protocol]
    need(f"protocol {protocol!r}", (*client.packages, "prometheus_client"), client.extra)


def _announce(settings: Settings, server: PolicyServer) -> Callable[[], None]:
    def announce() -> None:
        metrics = f", metrics at {server.metrics_address}" if server.metrics_address else ""
        name = served(settings).type
        sys.stdout.write(f"serving {name} as {settings.serve.protocol} at {server.address}{metrics}\n")
        sys.stdout.flush()

    return announce


def _server(settings: Settings) -> PolicyServer:
    import numpy as np

    from dexrun.serve.server import local_server
    from runtime.interfaces import PolicyError
    from runtime.joints import JointLayout
    from runtime.so100 import JOINT_NAMES, JOINT_RANGES_RAD

    joints = JointLayout(tuple(JOINT_NAMES), np.array(JOINT_RANGES_RAD, dtype=float), (len(JOINT_NAMES) - 1,))
    make, options = policy_maker(settings), described(settings)
    own = remembers(served(settings))
    if options.engine == "ray":
        if own:
            name = served(settings).type
            raise PolicyError(f"policy {name!r} remembers the episode: engine 'ray' cannot serve it")
        from dexrun.serve.ray_engine import ray_server

        return ray_server(make, options, joints)
    return local_server(make(), options, joints, fresh=make if own else None)


def remembers(policy: PolicyConfig) -> bool:
    """Whether an answer depends on what was asked before: then every client needs a policy of its own."""
    from policies.dexgrasp.config import DexGraspConfig

    if isinstance(policy, DexGraspConfig):
        return policy.shape.observation_steps > 1
    return policy.type == "geometric"


def served(settings: Settings) -> PolicyConfig:
    """The table of the policy to serve."""
    return settings.serve.policy or settings.policy


def described(settings: Settings) -> ServeOptions:
    """The ``[serve]`` table. A file that also tells a client what to send is not asked for it twice."""
    from policies.mapping import UnitMap
    from policies.remote.config import RemoteOptions

    client, options = settings.policy, settings.serve
    if not isinstance(client, RemoteOptions):
        return options
    whole = UnitMap(**client.units.model_dump())  # each entry given: none of another protocol's gets in
    keys, units = options.keys or client.keys, options.units or whole
    return options.model_copy(update={"keys": keys, "units": units})


def policy_maker(settings: Settings) -> Callable[[], Policy]:
    """What makes the configured policy, without any device.

    Raises:
        PolicyError: it cannot be made here.
    """
    from dexrun.policies import build_policy
    from policies.remote.config import RemoteOptions
    from runtime.arm_model import ArmModel
    from runtime.clock import RealClock
    from runtime.interfaces import PolicyError

    config = served(settings)
    if isinstance(config, RemoteOptions):
        raise PolicyError(
            f"policy.type = {config.type!r} is itself behind a server; serve a local one, or name one in "
            "[serve.policy]"
        )
    infos = {name: _Calibrated(name, info) for name, info in simulated_cameras(settings).items()}
    if config.type == "geometric" and config.camera not in infos:
        raise PolicyError(
            f"policy 'geometric' needs the calibration of camera {config.camera!r}, which only the robot's "
            "own process has (the simulated tabletop's is known); it needs no GPU: run it there"
        )
    cameras = cast("Mapping[str, CameraDriver]", infos)  # asked for `info` only
    return lambda: build_policy(config, ArmModel(), cameras, RealClock())


class _Calibrated:
    """Stands for a camera whose calibration is all that a policy asks for."""

    def __init__(self, name: str, info: CameraInfo) -> None:
        self.name = name
        self.info = info


def simulated_cameras(settings: Settings) -> dict[str, CameraInfo]:
    """Calibration of the cameras that are the simulated tabletop's, from the configuration alone."""
    from drivers.realsense.config import RealSenseConfig
    from runtime.geometry_options import base_from_camera
    from runtime.messages import CameraInfo, Intrinsics

    found = {}
    for name, camera in settings.cameras.items():
        if not isinstance(camera, RealSenseConfig) or camera.serial != "world:head":
            continue
        if camera.extrinsics is None:
            continue
        focal = camera.height / 2 / math.tan(math.radians(settings.world.head.fovy_deg) / 2)
        center = ((camera.width - 1) / 2, (camera.height - 1) / 2)
        found[name] = CameraInfo(
            name,
            Intrinsics(camera.width, camera.height, focal, focal, *center),
            settings.world.head.depth_scale_m,
            base_from_camera(camera.extrinsics),
        )
    return found
