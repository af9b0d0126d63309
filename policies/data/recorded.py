"""Which episodes there are to export, and whether they go together in one data set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from policies.data.dataset import DatasetError
from policies.data.sampling import SamplingOptions, Target
from runtime.joints import GRIPPER_UNIT, JointLayout, prefixed
from runtime.messages import Floats
from runtime.recording.bounds import reading
from runtime.recording.tracks import device_topic
from runtime.units import MIDDLE, JointUnits, UnitError, UnitMap, calibrated, joint_units

if TYPE_CHECKING:
    from runtime.recording.reader import Episode


@dataclass(frozen=True, slots=True)
class CameraShape:
    """Size of a camera's images; `depth_scale_m` of its depth's unit, 0 if it has none."""

    height: int
    width: int
    depth: bool
    depth_scale_m: float


@dataclass(frozen=True, slots=True)
class DatasetShape:
    """What all episodes of one data set have in common.

    Attributes:
        joints: names. ranges: ``(low, high)`` of each, radians; of a gripper 0 to 1.
        force_channels: 0 without a force sensor.
        grippers: indices of the joints that are grippers.
        robot: JSON of what the recording says of its arm's model.
        arms: the tables of its arms (``arm``, or ``arms.<name>`` in the order of the joint vector), each a
            sensor of that name.
        depth: whether the cameras' depth is exported, where they have any.
        recorded: every sensor that was recorded, exported or not.
        intervention: whether every row says if a person drove, as those of rollouts do,
            and of grasp mode where a person may take over.
    """

    joints: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]
    force_channels: int
    cameras: Mapping[str, CameraShape]
    grippers: tuple[int, ...]
    robot: str = "{}"
    arms: tuple[str, ...] = ("arm",)
    depth: bool = True
    recorded: tuple[str, ...] = ()
    intervention: bool = False

    @property
    def depth_cameras(self) -> tuple[str, ...]:
        """Cameras whose depth is exported."""
        return tuple(name for name, camera in self.cameras.items() if self.depth and camera.depth)

    def exported(self, cameras: Iterable[str], *, depth: bool, force: bool) -> DatasetShape:
        """The shape of what is exported alone: these cameras, with depth and force or without."""
        kept = {name: camera for name, camera in self.cameras.items() if name in set(cameras)}
        return replace(self, cameras=kept, depth=depth, force_channels=self.force_channels if force else 0)

    def chosen(self, options: SamplingOptions) -> tuple[str, ...]:
        """The cameras to export, in the recording's order.

        Raises:
            DatasetError: one was asked for that is not there.
        """
        for name in options.cameras:
            if name not in self.cameras:
                known = [each for each in self.recorded if each not in (*self.arms, "force")]
                raise DatasetError(f"no camera {name!r} was recorded; there is: {_list(known)}")
        return tuple(c for c in self.cameras if not options.cameras or c in options.cameras)

    def latencies(self, options: SamplingOptions) -> dict[str, float]:
        """What is taken off the stamps of each sensor that is exported, seconds; those without are left out.

        Raises:
            DatasetError: a sensor is named that was not recorded.
        """
        for name in options.latency_s:
            if name not in self.recorded:
                raise DatasetError(
                    f"latency of {name!r}: no such sensor was recorded; there is: {_list(self.recorded)}"
                )
        exported = (*self.arms, *(("force",) if self.force_channels else ()), *self.cameras)
        return {name: options.latency_s[name] for name in exported if options.latency_s.get(name)}

    def head(self, options: SamplingOptions) -> str:
        """The camera that sees the scene; empty if there is no camera at all."""
        names = self.chosen(options)
        if options.head:
            return self._known(options.head, names)
        for name in ("head", "front"):
            if name in names:
                return name
        others = [n for n in names if n != "wrist"]
        with_depth = [n for n in others if self.cameras[n].depth]
        return (with_depth or others or list(names) or [""])[0]

    def wrist(self, options: SamplingOptions) -> str:
        """The camera on the gripper; empty if there is no second camera."""
        names = [n for n in self.chosen(options) if n != self.head(options)]
        if options.wrist:
            return self._known(options.wrist, self.chosen(options))
        return "wrist" if "wrist" in names else (names or [""])[0]

    def _known(self, name: str, names: Iterable[str]) -> str:
        if name not in names:
            raise DatasetError(f"no camera {name!r} is exported; there is: {_list(names)}")
        return name

    @property
    def robot_type(self) -> str:
        """As LeRobot data sets name it: the arm's model, a follower; two are ``bi_...``."""
        about = json.loads(self.robot)
        models = [Path(each.get("model", "arm")).stem for each in about.get("arms", {"": about}).values()]
        return f"{'bi_' if len(models) == 2 else ''}{'_'.join(dict.fromkeys(models))}_follower"

    @property
    def layout(self) -> JointLayout:
        """What the numbers of a joint vector are."""
        return JointLayout(self.joints, self.range_array(), self.grippers)

    def range_array(self) -> Floats:
        """``[D, 2]``."""
        return np.array(self.ranges, np.float64)

    def difference(self, other: DatasetShape) -> str:
        """What is not the same in `other`; empty if everything is."""
        if self.joints != other.joints:
            return f"joints {_list(self.joints)} against {_list(other.joints)}"
        if self.robot != other.robot:
            return f"arms {self.robot} against {other.robot}"
        if self.grippers != other.grippers:
            return "which joints are grippers"
        if not np.allclose(self.range_array(), other.range_array(), atol=1e-3):
            return "joint ranges"
        if self.force_channels != other.force_channels:
            return f"{self.force_channels} force channels against {other.force_channels}"
        if set(self.cameras) != set(other.cameras):
            return f"cameras {_list(self.cameras)} against {_list(other.cameras)}"
        for name, camera in self.cameras.items():
            one, two = (_size(each, depth=self.depth) for each in (camera, other.cameras[name]))
            if one != two:
                return f"camera {name}: {one} against {two}"
        return ""


@dataclass(frozen=True, slots=True)
class EpisodeRef:
    """An episode and where it is; crosses to other processes.

    Attributes:
        name: run and episode, for messages.
        joints: the arm's, as it was calibrated for this episode.
        masks: cameras that have tracked masks. annotated: those of them whose masks were made afterwards.
        drops: samples lost while recording, by topic.
        missing: cameras, and ``force``, that the robot had and of which there is no sample.
        action: which target it says is the action.
    """

    path: Path
    name: str
    index: int
    task: str
    label: str
    simulated: bool
    shape: DatasetShape
    joints: JointLayout
    masks: tuple[str, ...] = ()
    drops: Mapping[str, int] = field(default_factory=dict)
    repaired: bool = False
    missing: tuple[str, ...] = ()
    action: Target = "sent"
    annotated: tuple[str, ...] = ()

    def units(self, units: UnitMap) -> JointUnits:
        """How joints are expressed.

        Raises:
            DatasetError: `units` names something that the robot does not have.
        """
        try:
            return joint_units(self.joints, units)
        except UnitError as error:
            raise DatasetError(str(error)) from None


def name_of(path: Path) -> str:
    """Run and episode, for messages."""
    run = path.resolve().parent
    return f"{(run.parent if run.name == 'episodes' else run).name}/{path.name}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _size(camera: CameraShape, *, depth: bool) -> str:
    about = f" with depth in {camera.depth_scale_m} m" if depth and camera.depth else ""
    return f"{camera.width}x{camera.height}{about}"


def open_episode(path: Path, *, afterwards: bool = True) -> Episode:
    """The episode's reader; see there.

    Raises:
        DatasetError: the file is truncated, or is not a recording.
    """
    from runtime.recording.reader import Episode, RecordingError

    try:
        return Episode(path, afterwards=afterwards)
    except RecordingError as error:
        raise DatasetError(str(error)) from None


def episode_files(runs: Iterable[Path]) -> list[Path]:
    """Finished episodes' files of runs and single files, in order; each once, by whatever runs it is found.

    A run that goes on with another has the other's episodes, by a link.

    Raises:
        DatasetError: something is neither, or a run has none.
    """
    found: list[Path] = []
    for run in runs:
        if run.is_file():
            found.append(run)
            continue
        if not run.is_dir():
            raise DatasetError(f"{run}: no such run; expected a run's folder or an episode's .mcap file")
        files = sorted((run / "episodes").glob("*.mcap")) or sorted(run.glob("*.mcap"))
        if not files:
            raise DatasetError(f"{run}: no finished episode in it; expected episodes/episode_*.mcap")
        found.extend(files)
    return list({file.resolve(): file for file in reversed(found)}.values())[::-1]


def describe(path: Path, cameras: Iterable[str] = (), *, afterwards: bool = True) -> EpisodeRef | None:
    """What an episode's file holds, looking at these cameras or all; ``None`` if the episode was discarded.

    Without `afterwards` as if nothing had been found out about it since it was recorded.

    Raises:
        DatasetError: the file is truncated, or is not a recording, or a topic is missing.
    """
    with open_episode(path, afterwards=afterwards) as episode, reading(path):
        if episode.metadata.get("discarded") == "true":
            return None
        shape = shape_of(episode, tuple(cameras))
        return EpisodeRef(
            path=path.resolve(),
            name=name_of(path),
            index=episode.index,
            task=episode.task,
            label=episode.label,
            simulated=any(str(table.get("port", "")).startswith("world:") for table in _tables(episode)),
            shape=shape,
            joints=calibrated_joints(episode, shape),
            masks=tuple(
                t.removeprefix("/mask/") for t, n in episode.topics.items() if t[:6] == "/mask/" and n
            ),
            drops=episode.drops,
            repaired=episode.repaired,
            missing=_missing(episode),
            action=_action(episode),
            annotated=tuple(t[len(_MADE) :] for t in episode.topics if t.startswith(_MADE)),
        )


_MADE = "/annotation/"


def _action(episode: Episode) -> Target:
    """Which target the recording says is to be learned."""
    said = episode.config.get("export")
    kind = said.get("action") if isinstance(said, Mapping) else None
    return cast(Target, kind) if kind in get_args(Target) else "sent"


def _missing(episode: Episode) -> tuple[str, ...]:
    robot, topics = episode.robot, episode.topics
    force = ("force",) if robot.get("force") and not topics.get("/force") else ()
    return (*(name for name in robot.get("cameras") or {} if name not in episode.cameras), *force)


def calibrated_joints(episode: Episode, shape: DatasetShape) -> JointLayout:
    """The joints of the arm as it was calibrated; older recordings say the middle in the arm's table only."""
    entries: dict[str, Any] = {}
    for key, table in zip(episode.arms, _tables(episode), strict=True):
        _, _, arm = key.partition(".")
        zeros = {joint: {MIDDLE: zero} for joint, zero in table.get("zero_rad", {}).items()}
        for joint, entry in episode.calibration.get(key, {}).items():
            entries[prefixed(arm, joint)] = {**zeros.get(joint, {}), **entry}
    return calibrated(shape.layout, entries)


def _tables(episode: Episode) -> list[Mapping[str, Any]]:
    """The configuration of each of its arms."""
    config = episode.config
    return [
        config.get("arms", {}).get(key[5:], {}) if "." in key else config.get(key, {}) for key in episode.arms
    ]


def shape_of(episode: Episode, wanted: tuple[str, ...] = ()) -> DatasetShape:
    """Names, ranges and sizes; of the cameras `wanted`, or all.

    Raises:
        DatasetError: a topic that every recording has is missing or empty.
    """
    path, topics = episode.path, episode.topics
    for topic in ("/ticks", *(f"{device_topic(arm)}/state" for arm in episode.arms)):
        if not topics.get(topic):
            there = ", ".join(t for t, n in topics.items() if n) or "nothing"
            raise DatasetError(
                f"{path}: topic {topic} is missing or empty, and exports need it; there is: {there}"
            )
    robot = episode.robot
    names, ranges = robot.get("joint_names", []), robot.get("ranges_rad", [])
    if not names or len(ranges) != len(names):
        raise DatasetError(f"{path}: metadata record 'robot' must give joint_names and as many ranges_rad")
    channels = episode.shape("/force", "force")[0] if topics.get("/force") else 0
    cameras = {name: _camera(episode, name) for name in episode.cameras if not wanted or name in wanted}
    recorded_ones = (*episode.arms, *(("force",) if channels else ()), *episode.cameras)
    pairs = tuple((float(low), float(high)) for low, high in ranges)
    grippers = _grippers(robot.get("units"), len(names))
    return DatasetShape(
        tuple(names),
        pairs,
        channels,
        cameras,
        grippers,
        _about(robot),
        episode.arms,
        recorded=recorded_ones,
        intervention=bool(robot.get("driven", robot.get("mode") == "rollout")),
    )


def _about(robot: Mapping[str, Any]) -> str:
    keys = ("model", "body", "model_sha256", "arms", "joint_names")
    return json.dumps({key: robot[key] for key in keys if key in robot}, sort_keys=True)


def _grippers(units: Sequence[str] | None, joints: int) -> tuple[int, ...]:
    """Which joints are grippers, by their units; recordings that do not say have one, as the last."""
    if units is None:
        return (joints - 1,)
    return tuple(i for i, unit in enumerate(units) if unit == GRIPPER_UNIT)


def _camera(episode: Episode, name: str) -> CameraShape:
    height, width = episode.color_size(name)
    depth = name in episode.depth_cameras
    scale = episode.camera_info(name).depth_scale_m if depth else 0.0
    return CameraShape(height, width, depth, float(scale or 0.0))


def check_alike(refs: Iterable[EpisodeRef]) -> None:
    """All have the same shape.

    Raises:
        DatasetError: two differ; says in what.
    """
    first: EpisodeRef | None = None
    for ref in refs:
        if first is None:
            first = ref
        elif difference := first.shape.difference(ref.shape):
            raise DatasetError(
                f"{ref.name} and {first.name} are of different robots: {difference}; "
                "export them into data sets of their own"
            )
