"""The simulated table as a MuJoCo model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.world.config import HeadCameraOptions, WorldConfig
from drivers.world.layout import (
    TRAY_CENTER_M,
    TRAY_FLOOR_M,
    TRAY_HEIGHT_M,
    TRAY_INNER_M,
    TRAY_WALL_M,
    ObjectSpec,
)
from drivers.world.look import Look, look_of, moved_by, turned
from drivers.world.meshes import lighten
from runtime.body import CameraMount, RobotDescription
from runtime.joints import prefixed

ARM_FORCE_NM = 8.0
ARM_KP = 150.0
ARM_KV = 9.0
GRIPPER_FORCE_NM = 2.0
GRIPPER_KP = 25.0
GRIPPER_KV = 1.0
GRIPPER_ARMATURE = 0.02
HAND_FORCE_NM = 1.0
HAND_KP = 10.0
HAND_KV = 0.2
HAND_ARMATURE = 0.002
HAND_FRICTION_NM = 0.01
"""Of a hand's joints."""
SLIDE_FORCE_N = 30.0
SLIDE_KP = 3000.0
SLIDE_KV = 60.0
"""Of fingers that slide."""
JOINT_ARMATURE = 0.1
JOINT_FRICTION_NM = 0.1
"""All arms' servos are the same ones here, whatever a model's file says of them."""
OBJECT_DENSITY = 500.0
OBJECT_FRICTION = (1.5, 0.02, 0.0005)
TABLE_FRICTION = (0.8, 0.005, 0.0001)
TRAY_FRICTION = (1.0, 0.02, 0.001)
_SOLREF = (0.006, 1.2)
_SOLIMP = (0.97, 0.995, 0.001, 0.5, 2.0)
"""Objects weigh grams and the jaws press with ten newtons: soft contacts would let them sink in."""
_BELOW_M = 0.03
"""How far the tray's floor goes down into the table, so that nothing can fall through it."""

HEAD_CAMERA = "head"
WRIST_CAMERA = "wrist"

_HEAD_UP = (1.0, 0.0, 0.0)
_CAMERA_POS = (0.062, -0.008, -0.078)
_CAMERA_AIM = (0.0, -0.002, 0.015)
"""Of a wrist camera in the grasp site's frame: beside the fixed jaw, looking at the fingertips."""


def sensing_arm(config: WorldConfig, robot: RobotDescription) -> str:
    """The arm whose gripper has the wrist camera and the force sensor.

    Raises:
        ValueError: the robot has no arm of the configured name.
    """
    arm = config.sensing_arm or next(iter(robot.singles))
    if arm not in robot.singles:
        known = ", ".join(filter(None, robot.singles)) or "a single arm, which has no name"
        raise ValueError(f"sensing_arm = {arm!r}: no such arm; there is {known}")
    return arm


def object_body(index: int) -> str:
    """The body's name of object `index`."""
    return f"object_{index}"


@dataclass(frozen=True, slots=True)
class BuiltScene:
    """The ``mujoco.MjSpec`` of a table; by arm, which of its bodies are the arm's, and which its fingers."""

    spec: Any
    bodies: Mapping[str, tuple[str, ...]]
    fingers: Mapping[str, tuple[str, ...]]


def build_scene(config: WorldConfig, objects: Sequence[ObjectSpec], robot: RobotDescription) -> BuiltScene:
    """Table, tray, arm, cameras and `objects` (each with a free joint).

    Actuators are named after their joint: position servos in the model's frame.

    Raises:
        MeshesMissingError: a mesh of the arm is missing.
    """
    spec = robot.build(True)
    spec.modelname = "tabletop"
    bodies = {arm: _bodies(spec, arm) for arm in robot.singles}
    fingers = {arm: _fingers(spec, robot, arm) for arm in robot.singles}
    if config.render.mesh_cell_m:
        near = [body for each in fingers.values() for body in each]
        lighten(spec, config.render.mesh_cell_m, config.render.finger_cell_m, near)
    _options(spec, config)
    _grip_contacts(spec, [body for each in fingers.values() for body in each])
    _actuators(spec, robot)
    look = look_of(config)
    _surroundings(spec, look)
    _tray(spec, look)
    for index, entry in enumerate(objects):
        _object(spec, index, entry, look)
    _patches(spec, look)
    _few_triangles(spec)
    _head_camera(spec, config.head, look)
    _wrist_camera(spec, config, robot, look)
    return BuiltScene(spec, bodies, fingers)


def _options(spec: Any, config: WorldConfig) -> None:
    import mujoco

    spec.option.timestep = config.timestep_s
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    spec.option.enableflags |= mujoco.mjtEnableBit.mjENBL_SLEEP  # objects at rest cost nothing
    spec.visual.quality.offsamples = config.render.samples
    spec.visual.quality.shadowsize = 2048 if config.render.shadows else 0
    spec.visual.global_.offwidth = max(config.head.width, config.wrist.width)
    spec.visual.global_.offheight = max(config.head.height, config.wrist.height)
    spec.stat.extent = 1.0
    spec.visual.map.znear = 0.015
    spec.visual.map.zfar = 4.0
    spec.visual.headlight.ambient = [0.34, 0.34, 0.34]
    spec.visual.headlight.diffuse = [0.25, 0.25, 0.25]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]


def _few_triangles(spec: Any) -> None:
    """Flat sides, and those of cylinders, are drawn whole: lamps that are far away light parts alike."""
    import mujoco

    kinds = mujoco.mjtGeom
    curved = (kinds.mjGEOM_SPHERE, kinds.mjGEOM_CAPSULE, kinds.mjGEOM_ELLIPSOID)
    spec.visual.quality.numquads = 1
    if not any(geom.type in curved for geom in spec.geoms):
        spec.visual.quality.numstacks = 2  # with one, cylinders have no ends


def _bodies(spec: Any, arm: str) -> tuple[str, ...]:
    return tuple(b.name for b in spec.bodies if b.name != "world" and b.name.startswith(prefixed(arm, "")))


def _fingers(spec: Any, robot: RobotDescription, arm: str) -> tuple[str, ...]:
    """The gripper's bodies: that of the grasp point, those that grippers move, and what hangs on them."""
    grippers = [name for name in robot.grippers if name.startswith(prefixed(arm, ""))]
    found = [spec.site(robot.sites[arm]).parent, *(spec.joint(name).parent for name in grippers)]
    for body in found:
        found += [child for child in body.bodies if child.name not in [each.name for each in found]]
    return tuple(dict.fromkeys(body.name for body in found))


def _grip_contacts(spec: Any, fingers: Sequence[str]) -> None:
    for name in fingers:
        for geom in spec.body(name).geoms:
            if not geom.contype:
                continue
            geom.friction = OBJECT_FRICTION
            geom.condim = 4
            geom.solref = _SOLREF
            geom.solimp = _SOLIMP


def _actuators(spec: Any, robot: RobotDescription) -> None:
    for name in robot.joints:
        grip, joint = name in robot.grippers, spec.joint(name)
        kp, kv, force = (GRIPPER_KP, GRIPPER_KV, GRIPPER_FORCE_NM) if grip else (ARM_KP, ARM_KV, ARM_FORCE_NM)
        if grip and joint.type == _slide():
            kp, kv, force = SLIDE_KP, SLIDE_KV, SLIDE_FORCE_N
        if name in robot.hand:
            kp, kv, force = HAND_KP, HAND_KV, HAND_FORCE_NM
        joint.damping = [0.0, 0.0, 0.0]
        joint.frictionloss, joint.armature = JOINT_FRICTION_NM, JOINT_ARMATURE
        if name in robot.hand:
            joint.frictionloss, joint.armature = HAND_FRICTION_NM, HAND_ARMATURE
        actuator = spec.add_actuator(name=name, target=name)
        actuator.trntype = _transmission()
        actuator.set_to_position(kp=kp, kv=kv)
        actuator.forcerange = [-force, force]
        actuator.forcelimited = 1
        if grip:
            joint.armature = GRIPPER_ARMATURE


def _slide() -> Any:
    import mujoco

    return mujoco.mjtJoint.mjJNT_SLIDE


def _transmission() -> Any:
    import mujoco

    return mujoco.mjtTrn.mjTRN_JOINT


def _surroundings(spec: Any, look: Look) -> None:
    import mujoco

    world = spec.worldbody
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[0.9, 0.9, 0.05],
        rgba=[*look.table, 1.0],
        friction=TABLE_FRICTION,
        group=1,
    )
    if look.light != 1.0:
        spec.visual.headlight.ambient = [0.34 * look.light] * 3
        spec.visual.headlight.diffuse = [0.25 * look.light] * 3
    for x, y, power in _lamps(look):
        world.add_light(
            pos=[x, y, 1.4],
            dir=[-x * 0.6, -y * 0.6, -1.4],
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            diffuse=[power] * 3,
            specular=[0.05] * 3,
            castshadow=x > 0,
        )


def _lamps(look: Look) -> list[tuple[float, float, float]]:
    """Where they stand, and how bright they are."""
    lamps = [(0.5, 0.6, 0.30), (-0.3, -0.6, 0.30)]
    if not look.lamp_turn_rad and look.light == 1.0:
        return lamps
    cosine, sine = math.cos(look.lamp_turn_rad), math.sin(look.lamp_turn_rad)
    return [(x * cosine - y * sine, x * sine + y * cosine, power * look.light) for x, y, power in lamps]


def _patches(spec: Any, look: Look) -> None:
    import mujoco

    for number, patch in enumerate(look.patches):
        spec.worldbody.add_geom(
            name=f"patch_{number}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[patch.x_m, patch.y_m, 0.0001 * (1 + number)],
            quat=[math.cos(patch.yaw_rad / 2), 0.0, 0.0, math.sin(patch.yaw_rad / 2)],
            size=[*patch.half_m, 0.0001],
            rgba=[*patch.rgb, 1.0],
            contype=0,
            conaffinity=0,
            group=1,
        )


def _tray(spec: Any, look: Look) -> None:
    import mujoco

    body = spec.worldbody.add_body(name="tray", pos=[*TRAY_CENTER_M, 0.0])
    hx, hy, wall = TRAY_INNER_M[0] / 2, TRAY_INNER_M[1] / 2, TRAY_WALL_M / 2
    half = TRAY_HEIGHT_M / 2
    floor = (TRAY_FLOOR_M + _BELOW_M) / 2
    parts = {
        "floor": ((0.0, 0.0, TRAY_FLOOR_M - floor), (hx, hy, floor)),
        "front": ((hx + wall, 0.0, half), (wall, hy + 2 * wall, half)),
        "back": ((-hx - wall, 0.0, half), (wall, hy + 2 * wall, half)),
        "left": ((0.0, hy + wall, half), (hx, wall, half)),
        "right": ((0.0, -hy - wall, half), (hx, wall, half)),
    }
    for name, (pos, size) in parts.items():
        body.add_geom(
            name=f"tray_{name}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=pos,
            size=size,
            rgba=[*look.tray, 1.0],
            friction=TRAY_FRICTION,
            solref=_SOLREF,
            solimp=_SOLIMP,
            priority=1,
            condim=4,
            group=1,
        )


def _object(spec: Any, index: int, entry: ObjectSpec, look: Look) -> None:
    import mujoco

    width, depth, height = entry.size_m
    body = spec.worldbody.add_body(
        name=object_body(index),
        pos=[entry.x_m, entry.y_m, height / 2],
        quat=[math.cos(entry.yaw_rad / 2), 0.0, 0.0, math.sin(entry.yaw_rad / 2)],
    )
    body.add_freejoint(name=object_body(index))
    cylinder = entry.shape == "cylinder"
    kind = mujoco.mjtGeom.mjGEOM_CYLINDER if cylinder else mujoco.mjtGeom.mjGEOM_BOX
    size = [width / 2, height / 2, 0.0] if cylinder else [width / 2, depth / 2, height / 2]
    body.add_geom(
        name=object_body(index),
        type=kind,
        size=size,
        density=OBJECT_DENSITY,
        friction=OBJECT_FRICTION,
        condim=4,
        solref=_SOLREF,
        solimp=_SOLIMP,
        rgba=[*look.colors[entry.color], 1.0],
        group=0,
    )


def _head_camera(spec: Any, options: HeadCameraOptions, look: Look) -> None:
    axes = camera_axes(options.position_m, options.look_at_m, _HEAD_UP)
    spec.worldbody.add_camera(
        name=HEAD_CAMERA,
        pos=moved_by(axes, options.position_m, look.shift_m["head"]) if look.moved else options.position_m,
        xyaxes=turned(axes, look.turn_rad["head"]),
        fovy=options.fovy_deg,
    )


def calibrated_pose(options: HeadCameraOptions) -> Any:
    """4x4, where the camera over the table is by its calibration: optical frame to base frame."""
    import numpy as np

    x, y = np.array(camera_axes(options.position_m, options.look_at_m, _HEAD_UP)).reshape(2, 3)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, -y, -np.cross(x, y)], axis=1)
    pose[:3, 3] = options.position_m
    return pose


def _wrist_camera(spec: Any, config: WorldConfig, robot: RobotDescription, look: Look) -> None:
    """On the gripper; of several arms, on one's."""
    arm = sensing_arm(config, robot)
    alone = robot.singles[arm]
    mount = alone.camera or _beside(spec.site(robot.sites[arm]))
    axes = camera_axes(mount.position_m, mount.aim_m, mount.up)
    spec.body(mount.body if alone.camera is None else prefixed(arm, mount.body)).add_camera(
        name=WRIST_CAMERA,
        pos=moved_by(axes, mount.position_m, look.shift_m["wrist"]) if look.moved else mount.position_m,
        xyaxes=turned(axes, look.turn_rad["wrist"]),
        fovy=config.wrist.fovy_deg,
    )


def _beside(site: Any) -> CameraMount:
    """Where a wrist camera is that nobody described."""
    import mujoco
    import numpy as np

    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, np.array(site.quat))
    turn = rotation.reshape(3, 3)
    position, aim = (turn @ at + site.pos for at in (_CAMERA_POS, _CAMERA_AIM))
    return CameraMount(site.parent.name, _triple(position), _triple(aim), _triple(turn[:, 0]))


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    x, y, z = map(float, values)
    return x, y, z


def camera_axes(position: Sequence[float], target: Sequence[float], up: Sequence[float]) -> list[float]:
    """The x (right) and y (up) axes of a camera at `position` that looks at `target`."""
    import numpy as np

    forward = np.subtract(target, position)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    return [*map(float, right), *map(float, np.cross(right, forward))]
