"""The world's own clockwork: physics, operator, force samples and frames, each at its time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drivers.force.config import ForceConfig
from drivers.world.config import WorldConfig
from drivers.world.devices import Devices, wires
from drivers.world.faults import Fault
from drivers.world.judge import JudgeReport, judge
from drivers.world.layout import draw_objects
from drivers.world.look import look_of
from drivers.world.operator import TICK_S, LeaderArm, Operator
from drivers.world.physics import Tabletop
from drivers.world.render import Renderer, base_from_camera, camera_infos
from drivers.world.scene import calibrated_pose
from runtime.body import RobotDescription
from runtime.clock import NS_PER_S
from runtime.messages import CameraInfo
from runtime.ring import Ring

HEAD_SLOTS = 6
_TICK_NS = round(TICK_S * NS_PER_S)


class Periodic:
    """Instants `start_ns` + k * period, without drift."""

    def __init__(self, rate_hz: float, start_ns: int) -> None:
        self._rate = rate_hz
        self._start_ns = start_ns
        self._count = 0

    @property
    def next_ns(self) -> int:
        """The next instant that was not taken yet."""
        return self._start_ns + round(self._count * NS_PER_S / self._rate)

    def take(self) -> None:
        """The next instant has been served."""
        self._count += 1

    def skip_to(self, now_ns: int) -> int:
        """Leave out instants before `now_ns`, but not the last of them; returns how many."""
        due = int((now_ns - self._start_ns) * self._rate // NS_PER_S)
        skipped = max(0, due - self._count)
        self._count += skipped
        return skipped


class World:
    """Everything but the pacing. The thread that makes it owns the renderer and calls `render_*`.

    `advance` may be called on another thread; a lock keeps the two and the commands apart.
    """

    def __init__(
        self,
        config: WorldConfig,
        force: ForceConfig,
        folder: Path,
        start_ns: int,
        robot: RobotDescription,
        baudrates: Mapping[str, int] | None = None,
    ) -> None:
        import mujoco

        self._mujoco = mujoco
        self._lock = threading.Lock()
        self.config = config
        self.table = Tabletop(config, draw_objects(config), robot, start_ns)
        self._leaders = {
            arm: LeaderArm(bank.joints_rad(), bank.encoders.leaders())
            for arm, bank in self.table.banks.arms.items()
        }
        self.operator = Operator(self.table, self._leaders, config.operator)
        self._view = mujoco.MjData(self.table.model)
        self._renderer = Renderer(self.table.model, config)
        self.infos = self._camera_infos()
        head = config.head
        layout = {"color": ((head.height, head.width, 3), "u1"), "depth": ((head.height, head.width), "<u2")}
        self.ring = Ring.create_shared(layout, HEAD_SLOTS)
        self.banks = wires(self.table.banks.arms, {arm: leader.bank for arm, leader in self._leaders.items()})
        self.devices = Devices(config, force, folder, self.banks, baudrates or {})
        self._tick_ns = start_ns
        self.head_due = Periodic(head.fps, start_ns)
        self.wrist_due = Periodic(config.wrist.fps, start_ns + round(NS_PER_S / config.wrist.fps / 2))
        self.force_due = Periodic(config.force.rate_hz, start_ns)
        for due in (self.head_due, self.force_due):
            due.take()

    def _camera_infos(self) -> dict[str, CameraInfo]:
        self._mujoco.mj_kinematics(self.table.model, self._view)
        self._mujoco.mj_camlight(self.table.model, self._view)
        if look_of(self.config).moved:  # what nobody knows
            return camera_infos(self.config, calibrated_pose(self.config.head))
        return camera_infos(self.config, base_from_camera(self._view, "head"))

    # --- physics

    def advance(self, to_ns: int) -> int:
        """Bring physics, operator and force sensor up to `to_ns`; returns how many force bytes went out."""
        sent = 0
        with self._lock:
            while True:
                until = min(to_ns, self._tick_ns + _TICK_NS, self.force_due.next_ns)
                self.table.advance(until)
                if until == self._tick_ns + _TICK_NS:
                    self._tick_ns = until
                    self.operator.tick()
                    for leader in self._leaders.values():
                        leader.step(TICK_S)
                if until == self.force_due.next_ns:
                    self.force_due.take()
                    sent += self.devices.send_force(self.table.fingertip_force_n())
                if until >= to_ns:
                    return sent

    def jump(self, to_ns: int) -> None:
        """Leave out the time up to `to_ns`: the table stands still meanwhile."""
        with self._lock:
            self.table.restart_clock(to_ns)
            self._tick_ns = to_ns
            self.force_due.skip_to(to_ns)
            self.force_due.take()

    # --- pictures

    def _freeze(self) -> int:
        """Take over the table's state for a picture; returns its instant."""
        with self._lock:
            self._view.qpos[:] = self.table.data.qpos
            stamp_ns = self.table.now_ns
        self._mujoco.mj_kinematics(self.table.model, self._view)
        self._mujoco.mj_camlight(self.table.model, self._view)
        return stamp_ns

    def moved_since(self, instant_ns: int) -> bool:
        """Whether the table's time has gone on: a picture of the same instant again would be the same one."""
        with self._lock:
            return self.table.now_ns > instant_ns

    def render_head(self, stamp_ns: int | None = None) -> int:
        """Publish what the head camera sees now, stamped with the state's own instant if none is given;
        returns that instant.
        """
        here = self._freeze()
        with self.ring.write(here if stamp_ns is None else stamp_ns) as slot:
            self._renderer.head(self._view, slot["color"], slot["depth"])
        return here

    def render_wrist(self, stamp_ns: int | None = None) -> tuple[int, int]:
        """Send what the wrist camera sees now; returns 1 if anybody gets it, and the state's instant."""
        here = self._freeze()
        color = self._renderer.wrist(self._view)
        return self.devices.send_wrist(color, here if stamp_ns is None else stamp_ns), here

    # --- commands

    def judge(self) -> JudgeReport:
        """The score now."""
        with self._lock:
            return judge(self.table)

    def command(self, action: str) -> dict[str, Any]:
        """Have the operator ``start`` or ``stop``; anything else only asks what it does."""
        with self._lock:
            if action == "start":
                self.operator.start()
            elif action == "stop":
                self.operator.stop()
            return self.operator.report.as_json()

    def inject(self, fault: Fault) -> None:
        """Make `fault` happen.

        Raises:
            ValueError: it names an object that is not there.
        """
        if fault.device == "hand":
            self._shove(fault)
            return
        if fault.device != "table":
            self.devices.inject(fault)
            return
        with self._lock:
            index = self._object(fault)
            if fault.kind == "remove":
                self.table.remove_object(index)
            else:
                self.table.place_object(index, fault.x_m, fault.y_m)

    def _shove(self, fault: Fault) -> None:
        leader = next(iter(self._leaders.values()))
        with self._lock:
            if fault.kind == "clear":
                leader.clear()
            else:
                leader.shove(fault.servo - 1, fault.value_rad)

    def motion(self) -> dict[str, Any]:
        """What the arms ran into so far; empty unless the configuration has it watched."""
        with self._lock:
            witness = self.table.witness
            return {} if witness is None else witness.as_json()

    def _object(self, fault: Fault) -> int:
        names = [o.name for o in self.table.objects]
        if fault.kind == "add" and not fault.object:
            return len(names) - 1
        if fault.object not in names:
            raise ValueError(f"no object {fault.object!r} on the table; there are {', '.join(names)}")
        return names.index(fault.object)

    def close(self) -> None:
        """Take down wires, memory and graphics."""
        self.devices.close()
        self._renderer.close()
        self.ring.close()
        self.ring.unlink()
