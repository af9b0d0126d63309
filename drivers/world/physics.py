"""Steps the table: servo loops, contacts, fingertip force, and where everything is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from drivers.world.config import WorldConfig
from drivers.world.layout import ObjectSpec, away
from drivers.world.scene import build_scene, object_body, sensing_arm
from drivers.world.servos import SPEED_LIMIT_RAD_S, ArmBank, Drive, RobotBank
from drivers.world.witness import ContactWatch
from runtime.body import RobotDescription
from runtime.clock import NS_PER_S
from runtime.messages import Floats

_OFF_DAMPING = 0.8
"""A geared servo without torque turns, but slowly (N m s/rad)."""
_OFF_FRICTION = 0.4
"""And only under more than this (N m): a folded arm stays put, a stretched one sinks."""


def start_joints(config: WorldConfig, robot: RobotDescription) -> Floats:
    """The model's own positions ``[D]`` at power-up.

    Raises:
        ValueError: the configured pose has not a value for each joint, or one that the joint cannot have.
    """
    layout, pose = robot.layout, config.start_rad or robot.home_pose
    if len(pose) != len(layout.others):
        names = ", ".join(layout.names[i] for i in layout.others)
        raise ValueError(f"start_rad: give {len(layout.others)} values, one each for {names}")
    q = np.full(layout.joints, config.start_gripper)
    q[list(layout.others)] = pose
    for index in layout.others:
        low, high = layout.ranges[index]
        if not low <= q[index] <= high:
            raise ValueError(
                f"start_rad: {layout.names[index]} is {q[index]:g}; it can be {low:g} to {high:g}"
            )
    return robot.to_native(q)


class Tabletop:
    """The table's physics from `start_ns` on. Not thread-safe: one thread steps it and reads it."""

    def __init__(
        self,
        config: WorldConfig,
        objects: Sequence[ObjectSpec],
        robot: RobotDescription,
        start_ns: int = 0,
    ) -> None:
        import mujoco

        self._mujoco = mujoco
        self.objects = tuple(objects)
        self.robot = robot
        scene = build_scene(config, objects, robot)
        self.model: Any = scene.spec.compile()
        self.data: Any = mujoco.MjData(self.model)
        self.banks = RobotBank(start_joints(config, robot), robot)
        self.step_ns = round(config.timestep_s * NS_PER_S)
        self.present = [spec.present for spec in self.objects]
        """Which objects take part; the others wait far away."""
        self._start_ns = start_ns
        self._steps = 0
        self._dofs = np.array([self.model.joint(n).dofadr[0] for n in robot.joints])
        self._qpos = np.array([self.model.joint(n).qposadr[0] for n in robot.joints])
        self._ctrl = np.array([self.model.actuator(n).id for n in robot.joints])
        self._kp = self.model.actuator_gainprm[self._ctrl, 0].copy()
        self._kv = -self.model.actuator_biasprm[self._ctrl, 2].copy()
        self._friction = self.model.dof_frictionloss[self._dofs].copy()
        self._stall = self.model.actuator_forcerange[self._ctrl, 1].copy()
        self._object_geoms = {self.model.geom(object_body(i)).id: i for i in range(len(self.objects))}
        self._object_qpos = [self.model.joint(object_body(i)).qposadr[0] for i in range(len(self.objects))]
        self._jaws = {arm: self._ids(names) for arm, names in scene.fingers.items()}
        self._bodies = {arm: self._ids(names) for arm, names in scene.bodies.items()}
        self._of_jaws = {
            arm: np.isin(self.model.geom_bodyid, list(bodies)).tolist() for arm, bodies in self._jaws.items()
        }
        self._sensed = sensing_arm(config, robot)
        self._sensing = self.model.site(robot.sites[self._sensed]).id
        self.arms_pressed_n = 0.0
        """The largest force with which two arms ever pressed on each other."""
        self._owner = np.full(self.model.ngeom, -1)
        for number, bodies in enumerate(self._bodies.values()):
            self._owner[np.isin(self.model.geom_bodyid, list(bodies))] = number
        self.witness = (
            ContactWatch(self.model, self._bodies, self._dofs, robot.joints) if config.watched else None
        )
        self._aim = start_joints(config, robot)
        self._asked: tuple[bytes, ...] = ()
        self._powered = False
        self._read = self._settled = -1
        """Up to which of the registers' changes `_drive` is, and the actuators ask for what was written."""
        self.data.qpos[self._qpos] = self._aim
        self._drive = self.banks.drive()
        self._apply(self._drive)
        mujoco.mj_forward(self.model, self.data)
        self._publish()

    def _ids(self, bodies: Sequence[str]) -> set[int]:
        return {int(self.model.body(name).id) for name in bodies}

    @property
    def bank(self) -> ArmBank:
        """The first arm's servos."""
        return next(iter(self.banks.arms.values()))

    @property
    def now_ns(self) -> int:
        """Up to when the physics has been computed."""
        return self._start_ns + self._steps * self.step_ns

    def restart_clock(self, start_ns: int) -> None:
        """Let the state reached so far be that of `start_ns`."""
        self._start_ns, self._steps = start_ns, 0

    def advance(self, to_ns: int) -> int:
        """Step until the next step would pass `to_ns`; returns how many steps were made."""
        count = max(0, (to_ns - self.now_ns) // self.step_ns)
        for done in range(count):
            drive = self.banks.drive()
            self._apply(drive)
            self._mujoco.mj_step(self.model, self.data)
            self._publish()
            if self.witness is not None:
                self.witness.look(self.data, drive.torque, self.now_ns + (done + 1) * self.step_ns)
            if len(self._bodies) > 1:
                self.arms_pressed_n = max(self.arms_pressed_n, self._pressed_n())
        self._steps += count
        return int(count)

    def coast(self, to_ns: int) -> int:
        """As `advance`, where nobody reads or writes the servos' registers meanwhile: many times cheaper.

        The registers have the state reached once `report` is called; no witness looks at the steps.
        """
        count = left = max(0, (to_ns - self.now_ns) // self.step_ns)
        while left > 0:
            steps = left if self._stays() else 1
            self._mujoco.mj_step(self.model, self.data, steps)
            left -= steps
        self._steps += count
        return int(count)

    def _stays(self) -> bool:
        """Bring the actuators up to the coming step; whether they ask for the same in all that follow it."""
        changes = self.banks.changes
        if changes == self._settled:
            return True
        if changes != self._read:
            self._drive, self._read = self.banks.drive(), changes
        self._apply(self._drive)
        if self._powered and np.array_equal(self._aim, self._drive.goal_rad):
            self._settled = changes
        return changes == self._settled

    def report(self) -> None:
        """Bring the servos' registers up to the state reached by `coast`."""
        self._publish()

    def stand(self, q: Floats) -> None:
        """Put the robot's joints ``[D]`` (in its units) there, at rest, with that for its goal."""
        native = self.robot.to_native(q)
        self.data.qpos[self._qpos], self.data.qvel[self._dofs] = native, 0.0
        self.data.qacc_warmstart[:] = 0.0
        self.data.ctrl[self._ctrl] = self._aim = native
        self._settled = -1
        self._mujoco.mj_forward(self.model, self.data)
        self._publish()

    def _apply(self, drive: Drive) -> None:
        """Turn goals into actuator parameters: speed-limited, stiff as the gain register says."""
        reach = SPEED_LIMIT_RAD_S * self.step_ns / NS_PER_S
        self._aim += np.minimum(np.maximum(drive.goal_rad - self._aim, -reach), reach)
        asked = (drive.torque.tobytes(), drive.gain.tobytes(), drive.limit.tobytes())
        if asked != self._asked:
            self._asked = asked
            self._stiffen(drive)
        if not self._powered:
            self._aim = np.where(drive.torque > 0, self._aim, self.data.qpos[self._qpos])
        self.data.ctrl[self._ctrl] = self._aim

    def _stiffen(self, drive: Drive) -> None:
        """Torque, gains and limits as the registers have them; they seldom change."""
        self._powered = bool((drive.torque > 0).all())
        stiffness = self._kp * drive.gain * drive.torque
        damping = np.where(drive.torque > 0, self._kv * np.sqrt(drive.gain), _OFF_DAMPING)
        self.model.actuator_gainprm[self._ctrl, 0] = stiffness
        self.model.actuator_biasprm[self._ctrl, 1] = -stiffness
        self.model.actuator_biasprm[self._ctrl, 2] = -damping
        self.model.dof_frictionloss[self._dofs] = np.where(drive.torque > 0, self._friction, _OFF_FRICTION)
        limit = self._stall * np.where(drive.torque > 0, drive.limit, 1.0)
        self.model.actuator_forcerange[self._ctrl, 0] = -limit
        self.model.actuator_forcerange[self._ctrl, 1] = limit

    def _publish(self) -> None:
        self.banks.publish(
            self.data.qpos[self._qpos],
            self.data.qvel[self._dofs],
            self.data.actuator_force[self._ctrl] / self._stall,
        )

    def fingertip_force_n(self) -> Floats:
        """What the sensor in the fingertips feels, ``[3]`` in newtons, in the grasp site's axes.

        The first entry is the squeeze: how hard object and jaws press on each other along the jaws'
        opening direction (positive, averaged over both jaws); then the net force on the jaws from
        objects, table and tray, sideways and along the approach direction.
        """
        squeeze = 0.0
        net = np.zeros(3)
        touching = self._at_jaws(self._sensed)
        if not touching:
            return net
        frame = self.data.site_xmat[self._sensing].reshape(3, 3)
        wrench = np.zeros(6)
        for index in touching:
            contact = self.data.contact[index]
            hit = self._jaw_contact(contact, self._sensed)
            if hit == 0:
                continue
            self._mujoco.mj_contactForce(self.model, self.data, index, wrench)
            local = hit * (frame.T @ (contact.frame.reshape(3, 3).T @ wrench[:3]))
            net += local
            if self._touched_object(contact) is not None:
                squeeze += abs(local[1]) / 2
        return np.array([squeeze, net[0], net[2]])

    def _at_jaws(self, arm: str) -> list[int]:
        """Which contacts a jaw of `arm` takes part in."""
        count = self.data.ncon
        if count == 0:
            return []
        jaws = self._of_jaws[arm]
        pairs = self.data.contact.geom[:count].tolist()
        return [index for index, (one, other) in enumerate(pairs) if jaws[one] or jaws[other]]

    def held_objects(self) -> set[int]:
        """Those that touch any arm's jaw."""
        contacts = [self.data.contact[i] for i in range(self.data.ncon)]
        arms = self.robot.singles
        touched = {self._touched_object(c) for c in contacts if any(self._jaw_contact(c, a) for a in arms)}
        return {index for index in touched if index is not None}

    def _jaw_contact(self, contact: Any, arm: str) -> int:
        """+1 or -1, the sign that makes the contact's force the one on the arm's jaw; 0 if it is not one."""
        bodies, jaws, own = self.model.geom_bodyid, self._jaws[arm], self._bodies[arm]
        one, other = int(bodies[contact.geom1]), int(bodies[contact.geom2])
        if one in jaws and other not in own:
            return -1
        if other in jaws and one not in own:
            return 1
        return 0

    def _pressed_n(self) -> float:
        """With what force two arms press on each other now, at the contact where it is largest."""
        contacts = self.data.contact
        first, second = (self._owner[contacts.geom[: self.data.ncon, side]] for side in (0, 1))
        wrench, largest = np.zeros(6), 0.0
        for index in np.flatnonzero((first != second) & (first >= 0) & (second >= 0)).tolist():
            self._mujoco.mj_contactForce(self.model, self.data, index, wrench)
            largest = max(largest, float(np.linalg.norm(wrench[:3])))
        return largest

    def _touched_object(self, contact: Any) -> int | None:
        first = self._object_geoms.get(int(contact.geom1))
        return first if first is not None else self._object_geoms.get(int(contact.geom2))

    def object_pose(self, index: int) -> tuple[Floats, Floats]:
        """Position ``[3]`` of the centre, and unit quaternion ``[4]`` (w first)."""
        at = self._object_qpos[index]
        return self.data.qpos[at : at + 3].copy(), self.data.qpos[at + 3 : at + 7].copy()

    def remove_object(self, index: int) -> None:
        """Take object `index` off the table."""
        self.present[index] = False
        self.move_object(index, (*away(index), self.objects[index].size_m[2] / 2))

    def place_object(self, index: int, x_m: float, y_m: float) -> None:
        """Stand object `index` on the table, whether it was there or not."""
        self.present[index] = True
        self.move_object(index, (x_m, y_m, self.objects[index].size_m[2] / 2))

    def yaw_rad(self, index: int) -> float:
        """Which way the object's own x axis points in the table plane."""
        _, (w, x, y, z) = self.object_pose(index)
        return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))

    def move_object(self, index: int, position: Sequence[float], yaw_rad: float = 0.0) -> None:
        """Put object `index` down somewhere, at rest."""
        at = self._object_qpos[index]
        quat = [np.cos(yaw_rad / 2), 0.0, 0.0, np.sin(yaw_rad / 2)]
        self.data.qpos[at : at + 7] = [*position, *quat]
        dof = self.model.joint(object_body(index)).dofadr[0]
        self.data.qvel[dof : dof + 6] = 0.0
        self._mujoco.mj_forward(self.model, self.data)
