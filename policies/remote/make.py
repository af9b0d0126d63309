"""Both ends of the configured protocol, by its name. Its package is imported here and not before."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from policies.remote.client import RemotePolicy
from policies.remote.config import RemoteOptions
from runtime.clock import Clock

if TYPE_CHECKING:
    from policies.remote.serving.service import Front, Service
from runtime.joints import JointLayout

_ENDS = {
    "groot": ("policies.remote.groot", "GrootPolicy", "GrootFront"),
    "lerobot": ("policies.remote.lerobot", "LerobotPolicy", "LerobotFront"),
    "openpi": ("policies.remote.openpi", "OpenpiPolicy", "OpenpiFront"),
    "act_zmq": ("policies.remote.act_zmq", "ActRemotePolicy", "ActFront"),
}
"""By the policy's type: the protocol's package, its client and its server."""

_SERVED = {"gr00t": "groot", "act": "act_zmq"}
"""What ``[serve]`` calls a protocol, where that is not the policy's type."""


def make_remote(options: RemoteOptions, robot: JointLayout, clock: Clock) -> RemotePolicy:
    """A policy behind the server that `options` names; connects when warmed up.

    Raises:
        PolicyError: keys or units do not fit the robot, a token is missing, or the protocol's package is.
    """
    options.check_packages()
    package, client, _ = _ENDS[options.type]
    policy: RemotePolicy = getattr(import_module(f"{package}.client"), client)(options, robot, clock)
    return policy


def make_front(service: Service) -> Front:
    """The listening end for the protocol of the service.

    Raises:
        ModuleNotFoundError: a package that the protocol needs is missing.
    """
    protocol = service.options.protocol
    package, _, server = _ENDS[_SERVED.get(protocol, protocol)]
    front: Front = getattr(import_module(f"{package}.server"), server)(service)
    return front
