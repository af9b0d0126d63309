"""The client for a configured protocol; its package is imported here and not before."""

from __future__ import annotations

from policies.mapping import RobotJoints
from policies.remote.client import RemotePolicy
from policies.remote.config import GrootOptions, LerobotOptions, OpenpiOptions, RemoteConfig
from runtime.clock import Clock


def make_remote(options: RemoteConfig, robot: RobotJoints, clock: Clock) -> RemotePolicy:
    """A policy behind the server that `options` names; connects when warmed up.

    Raises:
        PolicyError: keys or units do not fit the robot, a token is missing, or the protocol's package is.
    """
    options.check_packages()
    if isinstance(options, GrootOptions):
        from policies.remote.groot.client import GrootPolicy

        return GrootPolicy(options, robot, clock)
    if isinstance(options, LerobotOptions):
        from policies.remote.lerobot.client import LerobotPolicy

        return LerobotPolicy(options, robot, clock)
    if isinstance(options, OpenpiOptions):
        from policies.remote.openpi.client import OpenpiPolicy

        return OpenpiPolicy(options, robot, clock)
    from policies.remote.act_zmq.client import ActRemotePolicy

    return ActRemotePolicy(options, robot, clock)
