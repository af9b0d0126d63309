"""The part: its table, and how it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.geometric.options import GeometricOptions
from runtime.part_context import PolicyContext

if TYPE_CHECKING:
    from policies.geometric.policy import GeometricPolicy


class GeometricConfig(GeometricOptions):
    """The ``[policy]`` table with ``type = "geometric"``."""

    def build(self, context: PolicyContext) -> GeometricPolicy:
        from policies.geometric.policy import GeometricPolicy

        return GeometricPolicy(self, context.arm_model(), lambda: context.cameras[self.camera])
