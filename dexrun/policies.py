"""From the ``[policy]`` table to a policy."""

from __future__ import annotations

from collections.abc import Mapping

from dexrun.config.settings import PolicyConfig
from policies.act.config import ActConfig
from policies.dexgrasp.config import DexGraspConfig
from policies.geometric.config import GeometricConfig
from policies.remote.config import RemoteConfig
from runtime.arm_model import ArmModel
from runtime.clock import Clock
from runtime.interfaces import CameraDriver, Policy

_IN_PROCESS = {
    "dexgrasp": "policies.dexgrasp.policy:DexGraspPolicy",
    "act": "policies.act.policy:ActPolicy",
}


def build_policy(
    config: PolicyConfig, model: ArmModel, cameras: Mapping[str, CameraDriver], clock: Clock
) -> Policy:
    """The configured policy, not warmed up yet; `model` is the policy's own from now on.

    Raises:
        PolicyError: it cannot be built for this robot, or a package that it needs is missing; one line.
    """
    config.check_packages()
    if isinstance(config, GeometricConfig):
        from policies.geometric.policy import GeometricPolicy

        camera = cameras[config.camera]
        return GeometricPolicy(config, model, lambda: camera.info)
    return _other(config, model, clock)


def _other(config: DexGraspConfig | ActConfig | RemoteConfig, model: ArmModel, clock: Clock) -> Policy:
    joints = model.layout
    if isinstance(config, DexGraspConfig | ActConfig) and config.worker == "process":
        from policies.process import ProcessPolicy

        return ProcessPolicy(_IN_PROCESS[config.type], config, joints)
    if isinstance(config, DexGraspConfig):
        from policies.dexgrasp.policy import DexGraspPolicy

        return DexGraspPolicy(config, joints)
    if isinstance(config, ActConfig):
        from policies.act.policy import ActPolicy

        return ActPolicy(config, joints)
    from policies.remote.make import make_remote

    return make_remote(config, joints, clock)
