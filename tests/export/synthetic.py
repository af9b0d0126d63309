"""Recordings made up sample by sample, through the recorder's own encoders and file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from drivers.arms import describe
from drivers.arms.so100 import JOINT_NAMES, JOINT_RANGES_RAD
from runtime.messages import CameraInfo, Intrinsics
from runtime.recording import schemas
from runtime.recording.config import RecorderOptions
from runtime.recording.mcap_file import Batch, Channel, McapFile
from runtime.recording.tracks import (
    camera_track,
    encode_color,
    info_channel,
    info_message,
    mask_channel,
    rows_track,
)
from runtime.ring import Ring
from runtime.tick import tick_layout

S = 1_000_000_000
OFFSET = 1_700_000_000 * S
START = 5_000 * S
RANGES = [*map(list, JOINT_RANGES_RAD[:-1]), [0.0, 1.0]]


@dataclass
class Made:
    """What an episode shall contain. Rates in Hz; `holes` drops frames of cameras by index.

    Attributes:
        lossless: colour as PNG, so that what is read is what was made.
        picture, depth_picture: other pictures; these are not kept in the truth.
        pilots: of a rollout, who drives at each tick.
        calibrated: whether the head camera has a pose: its own frame is the arm's.
    """

    seconds: float = 1.0
    task: str = "put the cube into the tray"
    label: str = "success"
    index: int = 0
    joints: tuple[str, ...] = JOINT_NAMES
    head: tuple[int, int] | None = (48, 64)
    wrist: tuple[int, int] | None = (32, 40)
    head_depth: bool = True
    depth_scale_m: float = 0.001
    head_fps: float = 30.0
    force: int = 2
    lossless: bool = True
    seed: int = 0
    masks: bool = False
    planner: Sequence[tuple[float, str]] = ()
    holes: Mapping[str, set[int]] = field(default_factory=dict)
    phase_ns: Mapping[str, int] = field(default_factory=dict)
    discarded: bool = False
    port: str = "world:follower"
    without: tuple[str, ...] = ()
    picture: Callable[..., Any] | None = None
    depth_picture: Callable[..., Any] | None = None
    calibration: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pilots: Callable[[int], int] | None = None
    calibrated: bool = False


@dataclass
class Truth:
    """What was put in: stamps and values by topic."""

    stamps: dict[str, list[int]] = field(default_factory=dict)
    values: dict[str, list[Any]] = field(default_factory=dict)

    def put(self, topic: str, stamp: int, value: Any) -> None:
        self.stamps.setdefault(topic, []).append(stamp)
        self.values.setdefault(topic, []).append(value)


def picture(rng: np.random.Generator, size: tuple[int, int], row: int) -> Any:
    """Smooth colours that move, so that video can hold them."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    waves = [127 + 90 * np.sin((x + 2 * row) / (9 + c) + y / (13 + 2 * c) + c) for c in range(3)]
    return np.clip(np.stack(waves, axis=-1) + rng.normal(0, 2, (*size, 3)), 0, 255).astype(np.uint8)


def depth_picture(rng: np.random.Generator, size: tuple[int, int], row: int) -> Any:
    """A slope of 0.3 to 0.8 m in millimetres, with holes."""
    slope = np.linspace(300, 800, size[1])[None] + np.arange(size[0])[:, None] + row
    image = np.rint(slope + rng.normal(0, 1, size)).astype(np.uint16)
    image[rng.random(size) < 0.05] = 0
    return image


class _File:
    """Collects messages by lane."""

    def __init__(self, tracks: Sequence[Any], notes: Sequence[Channel]) -> None:
        self.channels = [o.channel for t in tracks for o in t.outputs] + list(notes)
        self.ids = {c.topic: i for i, c in enumerate(self.channels, 1)}
        self.batches = {"images": Batch(), "depth": Batch("zstd", 1), "rows": Batch("zstd", 1)}
        self.full: list[Batch] = []

    def add(self, topic: str, lane: str, stamp: int, index: int, data: list[Any]) -> None:
        batch = self.batches[lane]
        batch.add(self.ids[topic], index, stamp + OFFSET, stamp, [bytes(d) for d in data])
        if batch.size > 400_000:
            self.full.append(batch)
            self.batches[lane] = Batch(batch.compression, batch.level)

    def sample(self, track: Any, stamp: int, index: int, **fields: Any) -> None:
        sample = replace(track.ring.blank(), index=index, stamp_ns=stamp)
        for name, value in fields.items():
            sample.fields[name][...] = value
        for output in track.outputs:
            self.add(output.channel.topic, output.lane, stamp, index, output.encode(sample, stamp + OFFSET))


def _times(made: Made, name: str, rate: float) -> list[int]:
    phase = made.phase_ns.get(name, 0)
    count = int(made.seconds * rate) + 1
    holes = made.holes.get(name, set())
    return [START + phase + round(i * S / rate) for i in range(count) if i not in holes]


def motion(made: Made, stamp: int) -> Any:
    """Where the joints are at a time: slow sines within the ranges, the gripper between 0.1 and 0.9."""
    t = (stamp - START) / S
    d = len(made.joints)
    middle = [(low + high) / 2 for low, high in (RANGES if d == len(RANGES) else [[-1.0, 1.0]] * d)]
    joints = [middle[j] + 0.4 * np.sin(0.9 * t + j + made.seed) for j in range(d - 1)]
    return np.array([*joints, 0.5 + 0.4 * np.sin(t)])


def write(path: Path, made: Made) -> Truth:
    """Write the episode's file at `path`; returns what is in it."""
    rng = np.random.default_rng(made.seed)
    truth = Truth()
    options = RecorderOptions(lossless=made.lossless)
    d = len(made.joints)
    cameras = {n: s for n, s in (("head", made.head), ("wrist", made.wrist)) if s is not None}
    tracks: dict[str, Any] = {}
    for name, size in cameras.items():
        layout: dict[str, Any] = {"color": ((*size, 3), "|u1")}
        if name == "head" and made.head_depth:
            layout["depth"] = (size, "<u2")
        tracks[name] = camera_track(name, Ring(layout, 4), options)
    state = dict.fromkeys(("position", "velocity", "load"), ((d,), "<f8"))
    tracks["arm"] = rows_track("arm", "/arm/state", "dexrun.ArmState", Ring(state, 4))
    tracks["sent"] = rows_track("arm", "/arm/sent", "dexrun.Goal", Ring({"position": ((d,), "<f8")}, 4))
    if made.force:
        layout = {"force": ((made.force,), "<f8")}
        tracks["force"] = rows_track("force", "/force", "dexrun.Force", Ring(layout, 4))
    tracks["ticks"] = rows_track("control", "/ticks", "dexrun.Tick", Ring(tick_layout(d, made.force), 4))
    tracks = {k: t for k, t in tracks.items() if not set(t.topics) & set(made.without)}
    notes = [mask_channel("head")] if made.masks else []
    infos = {}
    for name, (height, width) in cameras.items():
        scale = made.depth_scale_m if name == "head" and made.head_depth else None
        pose = np.eye(4) if made.calibrated and name == "head" else None
        lens = Intrinsics(width, height, 60.0, 60.0, width / 2, height / 2)
        infos[name] = CameraInfo(name, lens, scale, pose)
        channel = info_channel(name)
        notes.append(replace(channel, metadata=schemas.info_metadata(infos[name])))
    notes += [Channel("/planner", replace(schemas.EVENT, name="dexrun.Exchange"))]
    file = _File(list(tracks.values()), notes)
    for name, info in infos.items():
        file.add(f"/cameras/{name}/info", "rows", START, 0, [info_message(info, START + OFFSET)])
    _fill(made, tracks, cameras, file, truth, rng)
    out = McapFile(path, file.channels)
    for name, values in _metadata(made).items():
        out.write_metadata(name, values)
    for batch in [*file.full, *file.batches.values()]:
        out.write(batch)
    out.finish()
    return truth


def _fill(made: Made, tracks: Any, cameras: Any, file: _File, truth: Truth, rng: Any) -> None:
    for name, size in cameras.items():
        if name in tracks:
            _fill_camera(made, name, size, tracks[name], file, truth, rng)
    if "arm" in tracks:
        _fill_arm(made, tracks["arm"], file, truth, rng)
    if "force" in tracks:
        for index, stamp in enumerate(_times(made, "force", 200.0)):
            value = rng.normal(size=made.force)
            file.sample(tracks["force"], stamp, index, force=value)
            truth.put("force", stamp, value)
    if "ticks" in tracks:
        _fill_ticks(made, tracks, file, truth)
    for seconds, reply in made.planner:
        stamp = START + round(seconds * S)
        values = {"task": "generate_instruction", "reply": reply, "error": None, "attempt": 0}
        file.add("/planner", "rows", stamp, 0, [schemas.event("exchange", values)])


def _fill_camera(
    made: Made, name: str, size: tuple[int, int], track: Any, file: _File, truth: Truth, rng: Any
) -> None:
    for index, stamp in enumerate(_times(made, name, made.head_fps if name == "head" else 30.0)):
        fields = {"color": (made.picture or picture)(rng, size, index)}
        if name == "head" and made.head_depth:
            fields["depth"] = (made.depth_picture or depth_picture)(rng, size, index)
        file.sample(track, stamp, index, **fields)
        for key, value in fields.items() if made.picture is None else ():
            truth.put(f"{name} {key}", stamp, value)
        if name == "head" and made.masks and index % 2 == 0:
            mask = np.zeros(size, np.uint8)
            mask[4 : 10 + index % 7, 5:12] = 1
            png = encode_color(mask * 255, RecorderOptions())
            data = schemas.compressed_image(stamp + OFFSET, name, "png", png)
            file.add("/mask/head", "images", stamp, 0, data)
            truth.put("mask", stamp, mask)


def _fill_arm(made: Made, track: Any, file: _File, truth: Truth, rng: Any) -> None:
    for index, stamp in enumerate(_times(made, "arm", 90.0)):
        position, velocity = motion(made, stamp), rng.normal(size=len(made.joints))
        file.sample(track, stamp, index, position=position, velocity=velocity, load=0.1)
        truth.put("position", stamp, position)
        truth.put("velocity", stamp, velocity)


def _fill_ticks(made: Made, tracks: Any, file: _File, truth: Truth) -> None:
    for index, stamp in enumerate(_times(made, "ticks", 30.0)):
        target, sent_ns = motion(made, stamp + S // 20), stamp + 2_000_000
        vectors = {"requested": target + 0.01, "clipped": target, "sent": target}
        numbers = {"tick": index, "sent_stamp_ns": sent_ns, "state_stamp_ns": stamp, "force_stamp_ns": -1}
        numbers["pilot"] = 2 if made.pilots is None else made.pilots(index)
        position = motion(made, stamp)
        file.sample(tracks["ticks"], stamp, index, **vectors, **numbers, position=position)
        truth.put("sent", sent_ns, target)
        truth.put("tick", stamp, target)
        if "sent" in tracks:
            file.sample(tracks["sent"], sent_ns, index, position=target)


def _metadata(made: Made) -> dict[str, dict[str, str]]:
    end = START + round(made.seconds * S)
    robot: dict[str, object] = {"model": "so100", "model_sha256": describe().fingerprint}
    robot |= {"joint_names": list(made.joints), "control_rate_hz": 30.0}
    robot["mode"] = "teleop" if made.pilots is None else "rollout"
    robot["ranges_rad"] = RANGES if len(made.joints) == len(RANGES) else [[-1.0, 1.0]] * len(made.joints)
    clock = {"wall_ns": OFFSET, "monotonic_ns": 0, "offset_ns": OFFSET, "stepped": "false"}
    episode = {
        "index": str(made.index),
        "task": made.task,
        "label": made.label,
        "discarded": str(made.discarded).lower(),
        "repaired": "false",
        "start_ns": str(START),
        "end_ns": str(end),
        "start_time_ns": str(START + OFFSET),
        "end_time_ns": str(end + OFFSET),
        "drops": json.dumps({}),
    }
    return {
        "clock": {key: str(value) for key, value in clock.items()},
        "robot": {key: json.dumps(value) for key, value in robot.items()},
        **({"calibration": {"arm": json.dumps(made.calibration)}} if made.calibration else {}),
        "config": {"json": json.dumps({"arm": {"port": made.port}})},
        "episode": episode,
    }


def write_run(folder: Path, *episodes: Made) -> list[Truth]:
    """A run's folder with `episodes`."""
    (folder / "episodes").mkdir(parents=True)
    out = []
    for number, made in enumerate(episodes):
        name = f"episode_{number:06d}.mcap"
        out.append(write(folder / "episodes" / name, replace(made, index=number)))
    return out
