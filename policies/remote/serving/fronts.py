"""The listening end of the configured protocol; its package is imported here and not before."""

from __future__ import annotations

from importlib import import_module

from policies.remote.serving.service import Front, Service

_FRONTS = {
    "gr00t": ("policies.remote.groot.server", "GrootFront"),
    "lerobot": ("policies.remote.lerobot.server", "LerobotFront"),
    "openpi": ("policies.remote.openpi.server", "OpenpiFront"),
    "act": ("policies.remote.act_zmq.server", "ActFront"),
}
"""By the protocol's name in ``[serve]``."""


def make_front(service: Service) -> Front:
    """The listening end for the protocol of the service.

    Raises:
        ModuleNotFoundError: a package that the protocol needs is missing.
    """
    module, name = _FRONTS[service.options.protocol]
    front: Front = getattr(import_module(module), name)(service)
    return front
