"""The client for the configured protocol; its package is imported here and not before."""

from __future__ import annotations

from importlib import import_module

from policies.remote.client import RemotePolicy
from policies.remote.options import RemoteOptions
from runtime.clock import Clock
from runtime.joints import JointLayout

_CLIENTS = {
    "groot": ("policies.remote.groot.client", "GrootPolicy"),
    "lerobot_grpc": ("policies.remote.lerobot.client", "LerobotPolicy"),
    "openpi": ("policies.remote.openpi.client", "OpenpiPolicy"),
    "act_zmq": ("policies.remote.act_zmq.client", "ActRemotePolicy"),
}
"""By the policy's type."""


def make_remote(options: RemoteOptions, robot: JointLayout, clock: Clock) -> RemotePolicy:
    """A policy behind the server that `options` names; connects when warmed up.

    Raises:
        PolicyError: keys or units do not fit the robot, a token is missing, or the protocol's package is.
    """
    options.check_packages()
    module, name = _CLIENTS[options.type]
    policy: RemotePolicy = getattr(import_module(module), name)(options, robot, clock)
    return policy
