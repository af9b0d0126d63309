"""What the arms ran into, seen by the physics itself: for judging a run, never for the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.clock import NS_PER_S
from runtime.messages import Floats

LIMP_NS = NS_PER_S // 2
"""So long after its torque came back an arm still moves with what it gathered while it fell."""


class ContactWatch:
    """Keeps the hardest contact of any arm with table, tray, another arm or itself, and the fastest joints.

    What happens while a servo is without torque is kept apart (``limp``): an arm that falls follows nobody.

    Args:
        model: the compiled scene.
        bodies: each arm's bodies, by its name. dofs: of each joint ``[D]``, and joints: its name.
    """

    def __init__(
        self, model: Any, bodies: Mapping[str, set[int]], dofs: NDArray[Any], joints: Sequence[str]
    ) -> None:
        import mujoco

        self._mujoco = mujoco
        self._model = model
        self._dofs = dofs
        self._joints = tuple(joints)
        owner = np.full(model.ngeom, -1)
        for number, own in enumerate(bodies.values()):
            owner[np.isin(model.geom_bodyid, list(own))] = number
        self._arm = owner
        names = [model.geom(index).name for index in range(model.ngeom)]
        self._fixed = np.array([1 if n == "table" else 2 if n.startswith("tray") else 0 for n in names])
        self._wrench = np.zeros(6)
        self._limp_until_ns = 0
        self._powered = False
        self._contacts: dict[str, dict[str, dict[str, Any]]] = {"driven": {}, "limp": {}}
        self._speeds = {state: np.zeros(len(self._dofs)) for state in self._contacts}
        self._speed_ns = {state: np.zeros(len(self._dofs), int) for state in self._contacts}

    def look(self, data: Any, torque: Floats, now_ns: int) -> None:
        """At the state after a step; `torque` ``[D]`` is 1 where a servo has it."""
        if not torque.all():
            self._limp_until_ns = now_ns + LIMP_NS
        self._powered |= bool(torque.all())
        if not self._powered:  # nobody has begun to drive it
            return
        state = "limp" if now_ns < self._limp_until_ns else "driven"
        speed = np.abs(data.qvel[self._dofs])
        faster = speed > self._speeds[state]
        self._speeds[state][faster] = speed[faster]
        self._speed_ns[state][faster] = now_ns
        if data.ncon:
            self._contact(data, self._contacts[state], now_ns)

    def _contact(self, data: Any, kept: dict[str, dict[str, Any]], now_ns: int) -> None:
        geoms = data.contact.geom[: data.ncon]
        arms, fixed = self._arm[geoms], self._fixed[geoms]
        between = (arms >= 0).all(axis=1) | ((arms >= 0).any(axis=1) & (fixed > 0).any(axis=1))
        for index in np.flatnonzero(between).tolist():
            self._mujoco.mj_contactForce(self._model, data, index, self._wrench)
            force_n = float(np.linalg.norm(self._wrench[:3]))
            kind = _kind(arms[index].tolist(), int(fixed[index].max()))
            worst = kept.setdefault(kind, {"n": 0.0, "at_ns": 0, "between": []})
            if force_n > worst["n"]:
                worst.update(n=force_n, at_ns=now_ns, between=[self._named(g) for g in geoms[index].tolist()])

    def _named(self, geom: int) -> str:
        body = self._model.body(self._model.geom_bodyid[geom]).name
        return self._model.geom(geom).name or str(body)

    def as_json(self) -> dict[str, Any]:
        """By state (``driven``, ``limp``): the hardest contact of each kind, the fastest of each joint."""
        return {
            state: {
                "contacts": self._contacts[state],
                "speed": {
                    name: {"peak": float(peak), "at_ns": int(at)}
                    for name, peak, at in zip(
                        self._joints, self._speeds[state], self._speed_ns[state], strict=True
                    )
                },
            }
            for state in self._contacts
        }


def _kind(arms: Sequence[int], fixed: int) -> str:
    if fixed:
        return "table" if fixed == 1 else "tray"
    return "self" if arms[0] == arms[1] else "arms"
