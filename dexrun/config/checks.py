"""What must hold between the tables of the configuration: pure functions, run when it is loaded.

Each raises ``ValueError`` whose message begins with the key that is wrong.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dexrun.config.addresses import WORLD_ADDRESS, in_world
from dexrun.config.mode_options import SPOTS
from dexrun.config.settings import Settings
from dexrun.config.sources import suggestion
from dexrun.config.world_checks import world_addresses, world_cameras, world_pose
from drivers.arms.choice import robot_of, robot_of_all
from runtime.arm_model import ModelError
from runtime.body import RobotDescription
from runtime.body_options import ArmOptions, BodyOptions
from runtime.envelope import JointLimits
from runtime.joints import JointLayout
from runtime.messages import FaultKind
from runtime.part_context import CameraNeed
from runtime.part_table import PartTable
from runtime.parts import PolicyTable
from runtime.patience import check_patience
from runtime.table_model import MeshesMissingError

_OWN_FILE_BYTES = 1 << 20
_POSES, _ALIKE_M = 8, 0.005
"""Two arms move alike if their grasp points are so near to each other in so many poses."""
_HTTP = re.compile(r"http_\d{3}")


def check(settings: Settings) -> None:
    """Everything here, in this order.

    Raises:
        ValueError: the first thing that is wrong, its key first.
    """
    one_address(settings)
    one_table(settings)
    world_addresses(settings)
    own_calibration(settings)
    own_files(settings)
    simulated_time(settings)
    robot = known_robot(settings)
    arm_files(settings, robot)
    joint_names(settings, robot)
    working_arm(settings)
    fresh_enough(settings)
    world_cameras(settings)
    world_pose(settings, robot)
    poses(settings, robot, joint_limits(settings, robot))
    place(settings, robot)
    scripted_operator(settings, robot)
    jogged(settings)
    policy_cameras(settings)
    trained(settings)
    trained_arm(settings)
    rollout(settings)
    fault_rules(settings)


def one_address(settings: Settings) -> None:
    """A device is a real one or the simulated one: of two addresses, one would have no effect."""
    for name, device in settings.device_tables().items():
        given = device.addresses()
        real = [key for key, address in given.items() if not in_world(address)]
        simulated = [key for key, address in given.items() if in_world(address)]
        if real and simulated:
            one, other = real[0], simulated[0]
            raise ValueError(
                f"{name}.{one} = {given[one]!r} is a real device's, and {name}.{other} = {given[other]!r} "
                'the simulated one\'s; give one of them, and "" for the other'
            )


def one_table(settings: Settings) -> None:
    """A device has one table: whoever opened it second would find it taken, or silent."""
    taken: dict[tuple[str, ...], str] = {}
    for name, device in settings.device_tables().items():
        given = device.addresses()
        for key, address in list(given.items())[:1]:
            # Adapters may share a serial number: with a port besides, that tells them apart.
            same = tuple(os.path.realpath(a) if a.startswith("/") else a for a in given.values())
            if (other := taken.setdefault(same, f"{name}.{key}")) != f"{name}.{key}":
                raise ValueError(f"{name}.{key} = {address!r}: {other} is the same device; it has one table")


def own_calibration(settings: Settings) -> None:
    """Simulated devices bring along what any other must be given, such as an arm's calibration."""
    for name, device in settings.device_tables().items():
        if not in_world(device.address):
            try:
                device.check_real()
            except ValueError as error:
                raise ValueError(f"{name}.{error}") from None


def own_files(settings: Settings) -> None:
    """A file that is of one device, such as an arm's calibration, is no other's, under whatever name."""
    taken: dict[bytes, tuple[str, Path]] = {}
    for name, device in settings.device_tables().items():
        for key, file in device.own_files().items():
            given = f"{name}.{key}"
            other, first = taken.setdefault(_contents(file), (given, file))
            if other != given:
                same = (
                    "is the same file" if os.path.samefile(file, first) else f"has the same numbers ({first})"
                )
                raise ValueError(f"{given} = {str(file)!r}: {other} {same}; each device has its own")


def _contents(file: Path) -> bytes:
    """What is in it, however it is laid out; of one that cannot be read, which file it is."""
    try:
        text = file.read_bytes() if file.stat().st_size <= _OWN_FILE_BYTES else b""
        return json.dumps(json.loads(text), sort_keys=True).encode()
    except (OSError, ValueError, RecursionError):
        return os.fsencode(os.path.realpath(file))


def arm_files(settings: Settings, robot: RobotDescription) -> None:
    """What the arms' tables name, such as calibration files, is of arms with these joints."""
    for name, device in {**settings.arm_tables(), **settings.leader_tables()}.items():
        try:
            device.check_joints(robot.layout.part(name.partition(".")[2]))
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from None


def simulated_time(settings: Settings) -> None:
    """Everything in a stepped run is simulated: on real devices its targets would come too fast."""
    real = settings.real_addresses()
    if settings.realtime.clock == "stepped" and real:
        key, address = next(iter(real.items()))
        raise ValueError(
            f"realtime.clock = 'stepped' is for the simulated tabletop alone, and {key} = {address!r} is a "
            f"real device, which does not wait; give 'real', or an address that begins with {WORLD_ADDRESS!r}"
        )


def known_robot(settings: Settings) -> RobotDescription:
    """The follower is an arm that is known or described; the leader is one like it."""
    arms, leaders = settings.arm_tables(), settings.all_leader_tables()
    for (key, arm), (leads, leader) in zip(arms.items(), leaders.items(), strict=False):
        robot = _robot(key, arm)
        if not leader.model and leader.body != BodyOptions():
            raise ValueError(
                f"{leads}.body: without {leads}.model the leader is of the follower's model, and has its body"
            )
        if leader.model and (leader.model, leader.body) != (robot.name, arm.body):
            raise ValueError(
                f"{leads}.model = {leader.model!r}: joint angles of another model than the follower's "
                f"({robot.name!r}) mean something else; leave it out, or give both arms the same"
            )
    for key, arm in arms.items():
        _robot(key, arm)
    return robot_of_all(settings.followers())


def _robot(name: str, arm: ArmOptions) -> RobotDescription:
    try:
        return robot_of(arm)
    except (ModelError, MeshesMissingError) as error:
        raise ValueError(f"{name}.model = {arm.model!r}: {error}") from None


def joint_names(settings: Settings, robot: RobotDescription) -> None:
    """Tables by joint name joints of the arm."""
    tables: dict[str, Iterable[str]] = {
        "safety.joints": settings.safety.joints,
        "policy.discrete": settings.policy.discrete,
    }
    for name, part in {"policy": settings.policy, "serve.policy": settings.serve.policy}.items():
        if part is not None:
            tables.update(_by_joint(name, part))
    if settings.serve.units is not None:
        tables.update(settings.serve.units.by_joint("serve.units"))
    _name_joints(tables, robot.joints)
    for key, arm in {**settings.arm_tables(), **settings.all_leader_tables()}.items():
        _name_joints(_by_joint(key, arm), robot.layout.part(key.partition(".")[2]).names)


def _by_joint(key: str, part: PartTable) -> dict[str, Iterable[str]]:
    return {f"{key}.{name}": joints for name, joints in part.by_joint().items()}


def _name_joints(tables: Mapping[str, Iterable[str]], known: Sequence[str]) -> None:
    for key, names in tables.items():
        for joint in names:
            every_gripper = key.endswith(".joint_torque_limit_fraction") and joint == "gripper"
            if joint not in known and not every_gripper:
                raise ValueError(f"{key}.{joint}: no such joint{suggestion(joint, known)}")


def fresh_enough(settings: Settings) -> None:
    """What must be fresh comes often enough to be it."""
    grasp = settings.grasp
    if settings.mode == "grasp" and grasp.head in settings.cameras:
        key = f"cameras.{grasp.head}.fps"
        check_patience("grasp.stale_camera_s", grasp.stale_camera_s, key, settings.cameras[grasp.head].fps)
    if settings.force is not None:
        check_patience("grasp.stale_force_s", grasp.stale_force_s, "force.rate_hz", settings.force.rate_hz)


def joint_limits(settings: Settings, robot: RobotDescription) -> JointLimits:
    """What the safety stage will hold every joint to."""
    layout = robot.layout
    return JointLimits.build(settings.safety, layout.names, layout.ranges, layout.grippers)


def poses(settings: Settings, robot: RobotDescription, limits: JointLimits) -> None:
    """Poses have a value for every joint, which the arm can take where it is to."""
    layout = robot.layout
    every, arm = range(layout.joints), layout.others
    center, home = settings.teleop.center_rad, settings.grasp.home_rad or robot.home
    if center:
        _one_each("teleop.center_rad", center, [layout.names[i] for i in every])
    _one_each("grasp.home_rad", home, [layout.names[i] for i in every])
    if settings.mode == "grasp" or (settings.mode == "rollout" and settings.rollout.home):
        _in_range("grasp.home_rad", home, every, layout, limits)
    if park := settings.control.park_rad:
        _one_each("control.park_rad", park, [layout.names[i] for i in arm])
        _in_range("control.park_rad", park, arm, layout, limits)
    for name, policy in {"policy": settings.policy, "serve.policy": settings.serve.policy}.items():
        for key, pose in () if policy is None else policy.poses().items():
            arm = _worked(settings, policy, layout)
            _one_each(f"{name}.{key}", pose, [layout.names[i] for i in arm])
            if settings.mode != "teleop" and name == "policy":
                _in_range(f"policy.{key}", pose, arm, layout, limits)


def _worked(settings: Settings, policy: PolicyTable | None, layout: JointLayout) -> tuple[int, ...]:
    """The joints, without grippers, that the policy moves."""
    one = policy is not None and policy.one_arm
    return tuple(i for i in layout.of(settings.working_arm if one else "") if i in layout.others)


def working_arm(settings: Settings) -> None:
    """Of several arms, one is the one that works, where the mode or the policy moves one only."""
    arms, one_arm = settings.arms, settings.policy.one_arm
    for key, arm in {"grasp.arm": settings.grasp.arm, "rollout.arm": settings.rollout.arm}.items():
        if arm and arm not in arms:
            known = f"[arms] has: {', '.join(arms)}" if arms else "a single arm has no name"
            raise ValueError(f"{key} = {arm!r} is not one of several arms; {known}")
    if settings.mode == "teleop" or not arms or (settings.mode == "rollout" and not one_arm):
        return
    if not settings.working_arm:
        wanted = "grasp.arm is required: which one grasps"
        if settings.mode == "rollout":
            wanted = f"rollout.arm is required: which one the {settings.policy.type} policy moves"
        raise ValueError(f"{wanted}; [arms] has: {', '.join(arms)}")
    if one_arm and settings.policy.worker == "process":
        raise ValueError(
            f"policy.worker = 'process': the {settings.policy.type} policy moves one of several arms, which "
            "it can in a thread only"
        )


def _one_each(key: str, values: Sequence[float], names: Sequence[str]) -> None:
    if len(values) != len(names):
        raise ValueError(f"{key} = {list(values)}: give {len(names)} values, one each for {', '.join(names)}")


def _in_range(
    key: str, values: Sequence[float], joints: Iterable[int], layout: JointLayout, limits: JointLimits
) -> None:
    for joint, value in zip(joints, values, strict=True):
        low, high = limits.lower[joint], limits.upper[joint]
        if not low <= value <= high:
            raise ValueError(
                f"{key} = {list(values)}: {layout.names[joint]} is {value:g}; "
                f"[safety] lets it be {low:g} to {high:g}"
            )


def place(settings: Settings, robot: RobotDescription) -> None:
    """Objects are let go where the arm can be."""
    if settings.mode != "grasp":
        return
    grasp = settings.grasp
    place_m = grasp.place_m or robot.place_m
    farthest = max(math.hypot(*grasp.spot(place_m, number), place_m[2]) for number in range(SPOTS))
    if farthest > robot.reach_m or place_m[2] < 0.0:
        raise ValueError(
            f"grasp.place_m = {list(place_m)}: with grasp.place_spread_m the farthest spot is "
            f"{farthest:.2f} m from the base; give what is above the table and within {robot.reach_m:.2f} m"
        )


def scripted_operator(settings: Settings, robot: RobotDescription) -> None:
    """The scripted person at a simulated leader has something to grasp with."""
    if not any(in_world(leader.address) for leader in settings.leader_tables().values()):
        return
    if settings.teleop.scripted and not len(robot.fingers.joints):
        raise ValueError(
            f"teleop.scripted = true: the scripted operator needs a gripper or a hand, and {robot.name!r} "
            "has none; give false, or name them in arm.body.grippers or arm.body.hand"
        )


def jogged(settings: Settings) -> None:
    """A leader without an arm is where its follower is: nothing is scaled between them."""
    key = next((key for key, leader in settings.leader_tables().items() if leader.jogged), "")
    if key and settings.teleop.gain != 1.0:
        raise ValueError(
            f"teleop.gain = {settings.teleop.gain:g}: it scales nothing of {key}, which is no arm but where "
            f"the follower is; leave it out, and give {key}.hand_scale or {key}.linear_m_s"
        )


def trained(settings: Settings) -> None:
    """Random weights move simulated arms only."""
    arms = [
        key for key, arm in settings.arm_tables().items() if not in_world(arm.address) and not arm.simulated
    ]
    if settings.mode != "teleop" and settings.policy.untrained and arms:
        raise ValueError(
            f"policy.checkpoint is not given: random weights would move the real arm of [{arms[0]}]; "
            "they are for simulated arms"
        )


def trained_arm(settings: Settings) -> None:
    """A policy whose numbers are in the frame of one arm moves that one, whatever it is called, alone."""
    if settings.mode == "teleop":
        return
    try:
        model = settings.policy.trained_arm()
    except ValueError as error:
        raise ValueError(f"policy.{error}") from None
    key, arm = next(
        (key, arm) for key, arm in settings.arm_tables().items() if key.endswith(settings.working_arm)
    )
    here = robot_of(arm)
    if not model or model == here.name or _moves_alike(model, here):
        return
    raise ValueError(
        f"policy.checkpoint = {str(getattr(settings.policy, 'checkpoint', ''))!r}: it was trained on the arm "
        f"{model!r}, and {key}.model is {here.name!r}, whose joints mean other poses; give that arm, or a "
        "checkpoint of this one"
    )


def _moves_alike(model: str, here: RobotDescription) -> bool:
    """Whether the arm `model` has the grasp point where the arm `here` has it, whatever its joints are at."""
    try:
        one, other = robot_of(ArmOptions(model=model)).model(), here.model()
    except (ModelError, MeshesMissingError):
        return False
    if one.joints != other.joints or one.grippers != other.grippers:
        return False
    low, high = one.ranges.T
    shares = np.random.default_rng(0).uniform(0.2, 0.8, (_POSES, one.joints))
    apart = [one.fk(q)[:3, 3] - other.fk(q)[:3, 3] for q in low + shares * (high - low)]
    return bool(np.linalg.norm(apart, axis=1).max() < _ALIKE_M)


def rollout(settings: Settings) -> None:
    """A rollout in simulated time, where no person can be, comes to an end; one object is tracked."""
    if settings.mode != "rollout":
        return
    options = settings.recording
    if settings.realtime.clock == "stepped" and not (options.episodes and options.episode_s):
        key = "recording.episode_s" if options.episodes else "recording.episodes"
        raise ValueError(
            f"{key} = 0: on the stepped clock nobody ends an episode or the run; give recording.episodes, "
            "how many, and recording.episode_s, how long each may last"
        )
    masked = {need.camera for need in settings.policy.needs_cameras() if need.mask}
    if len(masked) > 1:
        raise ValueError(f"policy: masks in {' and '.join(sorted(masked))}; one camera's object is tracked")


def policy_cameras(settings: Settings) -> None:
    """The policy looks through cameras that are there, and show what it needs."""
    if settings.mode != "teleop":
        needs = settings.policy.needs_cameras()
        for need in needs:
            if need.camera not in settings.cameras:
                known = ", ".join(sorted(settings.cameras)) or "none"
                instead = settings.policy.other_cameras(list(settings.cameras))
                raise ValueError(f"{_named(need)} is not a camera; [cameras] has: {known}{instead}")
        for need in needs:
            _shows(settings, settings.policy, need)


def _named(need: CameraNeed) -> str:
    return f"policy.{need.key} = {need.camera!r}"


def _shows(settings: Settings, policy: PolicyTable, need: CameraNeed) -> None:
    """Grasp mode's masks are of the head camera alone; and depth is of cameras that have it."""
    if need.mask and settings.mode == "grasp" and need.camera != settings.grasp.head:
        raise ValueError(
            f"{_named(need)}: it must be grasp.head ({settings.grasp.head!r}), in whose pictures "
            "the object is tracked"
        )
    if need.depth and not settings.cameras[need.camera].depth:
        raise ValueError(f"{_named(need)}: the {policy.type} policy needs depth, and it has none")


def fault_rules(settings: Settings) -> None:
    """Every rule is about a device that there is, and a kind of fault that there can be."""
    arms = [*settings.arm_tables(), *(settings.all_leader_tables() or ["leader"])]
    known = ["*", *arms, "force", "planner", "policy", *settings.cameras]
    kinds = [kind.value for kind in FaultKind]
    for rule in settings.faults.rules:
        name, _, kind = rule.rpartition(".")
        if not name or not kind or rule == "*.*":
            raise ValueError(f'faults.rules.{rule}: a rule is "<device>.<kind>", "<device>.*" or "*.<kind>"')
        if name not in known:
            raise ValueError(f"faults.rules.{rule}: no such device{suggestion(name, known)}")
        if kind != "*" and kind not in kinds and not (name == "planner" and _HTTP.fullmatch(kind)):
            raise ValueError(f"faults.rules.{rule}: no such kind{suggestion(kind, kinds)}")
