"""What must hold of every run, read from what it left behind, by code that knows nothing of the program.

Recordings are read with the mcap package and the schemas that are in them; limits come from the configuration
that the recording holds; what the arm touched comes from the simulated physics. Nothing of the program is
imported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from mcap.reader import make_reader
from numpy.typing import NDArray

CONTACT_N = 20.0
OVERSPEED = 1.2
EARLY_S = 3.0
"""Set times of a run come near to its length."""
SLACK = 1e-6
REANCHORED_RAD = 0.02
"""A target this near to where the arm is asks for no motion, wherever the one before was."""

ON_TIME = 0.1
"""So much of a period may a tick be off."""

STOPPED, HOLDING, POSTED = 4, 2, 64
STOPS_AT_ONCE = ("collision", "force", "stall")
CLIP_BITS = {"collision": 32, "force": 64, "stall": 128}
NOT_SAMPLED = ("events", "control", "planner", "mask", "chunks")
SUMMARY = (
    *("mode", "outcome", "stop_reason", "duration_s", "ticks", "missed_ticks", "starved_ticks", "clips"),
    *("period_error_us", "work_us", "loop_lag_us", "sensor_rates_hz", "device_faults"),
)

Figures = dict[str, Any]
Floats = NDArray[np.float64]


class Episode:
    """One recorded file, as it is."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        with path.open("rb") as stream:
            reader = make_reader(stream, validate_crcs=True)
            summary = reader.get_summary()
            if summary is None or summary.statistics is None:
                raise ValueError(f"{path.name} has no summary")
            self.topics = {channel.topic: number for number, channel in summary.channels.items()}
            self.metadata = {record.name: record.metadata for record in reader.iter_metadata()}
            self.numbers: dict[str, list[int]] = {topic: [] for topic in self.topics}
            self.times: dict[str, list[int]] = {topic: [] for topic in self.topics}
            self.ticks: list[dict[str, Any]] = []
            self.events: list[dict[str, Any]] = []
            classes: dict[int, Any] = {}
            for schema, channel, message in reader.iter_messages():
                self.numbers[channel.topic].append(message.sequence)
                self.times[channel.topic].append(message.publish_time)
                if channel.topic == "/ticks":
                    assert schema is not None  # noqa: S101 - protobuf has one
                    kind = classes.setdefault(schema.id, None) or _class_of(schema)
                    classes[schema.id] = kind
                    self.ticks.append(_fields(kind.FromString(message.data)))
                elif channel.topic == "/events":
                    self.events.append({**json.loads(message.data), "at_ns": message.publish_time})

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that the run was made with."""
        return dict(json.loads(self.metadata["config"]["json"]))

    @property
    def robot(self) -> dict[str, Any]:
        """Joint names, ranges and rates."""
        return {key: json.loads(value) for key, value in self.metadata["robot"].items()}


def _class_of(schema: Any) -> Any:
    """The message class of a schema, as the file has it."""
    files = descriptor_pb2.FileDescriptorSet.FromString(schema.data)
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))


def _fields(message: Any) -> dict[str, Any]:
    return {
        field.name: list(value) if field.is_repeated else value
        for field in message.DESCRIPTOR.fields
        for value in (getattr(message, field.name),)
    }


# --- targets


def wrong_targets(episode: Episode) -> list[str]:
    """Every posted target outside range, velocity or acceleration, in words."""
    safety, robot = episode.config["safety"], episode.robot
    names, rate_hz = robot["joint_names"], float(robot["control_rate_hz"])
    grippers = [unit == "0..1" for unit in robot["units"]]
    limits = _Limits(safety, names, robot["ranges_rad"], grippers)
    found: list[str] = []
    last: Floats | None = None
    speeds: Floats | None = None  # by its targets, and by what it may have been set to: ``[2, D]``
    before: Mapping[str, Any] | None = None
    for tick in episode.ticks:
        passed = _passed_s(before, tick, rate_hz)
        dt = min(passed, safety["max_step_s"])
        was, before = before, tick
        if not tick["flags"] & POSTED:
            speeds = np.zeros((2, len(names)))
            continue
        target, here = np.array(tick["clipped"]), np.array(tick["position"])
        at_s = (tick["stamp_ns"] - episode.ticks[0]["stamp_ns"]) / 1e9
        where = f"tick {tick['tick']} ({at_s:.2f} s)"
        found += limits.outside(target, last, here, where, names)
        if last is not None:
            # A joint whose servo did not get its last target goes on from the goal that it has.
            held = np.array(tick["held"])
            last = np.where(np.isnan(held), last, held)
            speeds = None if speeds is None else np.where(np.isnan(held), speeds, np.nan)
            there = np.abs(target - here) < REANCHORED_RAD
            drawn = _drawn_back(was, tick, last, safety["stall_motion_rad"])
            now = (target - last) / dt
            faster = np.abs(now) > limits.velocity + SLACK / dt
            found += _said(faster & ~there, f"velocity: {where}", np.abs(now), names)
            known = now
            if speeds is not None:
                harder = limits.harder(now, speeds, dt, may_stop=_stops(tick["clips"]))
                if passed > (1 + ON_TIME) / rate_hz:
                    harder &= limits.braked_harder((target - last) * rate_hz, speeds, rate_hz)
                wrong = harder.all(axis=0)
                known = np.where(wrong & drawn, 0.0, np.where((faster | wrong) & there, np.nan, now))
                wrong &= ~drawn & ~there
                found += _said(wrong, f"acceleration: {where}", np.abs(now - speeds[0]) / dt, names)
            speeds = np.stack((known, np.where(drawn, 0.0, known)))
        last = target
    return found


def _passed_s(before: Mapping[str, Any] | None, tick: Mapping[str, Any], rate_hz: float) -> float:
    """Between two ticks, by their stamps; by their numbers where both were on time."""
    if before is None:
        return 1.0 / rate_hz
    by_number = (tick["tick"] - before["tick"]) / rate_hz
    by_stamp = float(tick["stamp_ns"] - before["stamp_ns"]) / 1e9
    return by_number if abs(by_stamp - by_number) < ON_TIME / rate_hz else by_stamp


def _drawn_back(
    before: Mapping[str, Any] | None, tick: Mapping[str, Any], last: Floats, still: float
) -> NDArray[np.bool_]:
    """Which joints, of those that push and stand `still`, have a target that comes nearer to where they are,
    and not beyond: they push less, and move no more than before. The velocity is limited then, too, and the
    speed of such a target is none of a motion: they are at rest.
    """
    here, target = np.array(tick["position"]), np.array(tick["clipped"])
    if before is None or not tick["clips"] & CLIP_BITS["stall"]:
        return np.zeros(len(target), dtype=bool)
    stands = np.abs(here - np.array(before["position"])) < still
    by, was = target - here, last - here
    back: NDArray[np.bool_] = stands & (np.abs(by) < np.abs(was)) & (by * was >= 0)
    return back


def _stops(clips: int) -> bool:
    """Whether a check changed this target that may stop it at once."""
    return any(clips & CLIP_BITS[kind] for kind in STOPS_AT_ONCE)


def _said(wrong: NDArray[np.bool_], what: str, values: Floats, names: list[str]) -> list[str]:
    """One line for each joint of which `wrong` is true."""
    return [f"{what} {names[i]} {values[i]:.3f}" for i in np.flatnonzero(wrong)]


class _Limits:
    """Of a ``[safety]`` table, per joint."""

    def __init__(
        self, safety: Mapping[str, Any], names: list[str], ranges: list[list[float]], grippers: list[bool]
    ) -> None:
        def each(arm: str, gripper: str, own: str) -> Floats:
            common = [safety[gripper if grips else arm] for grips in grippers]
            tighter = [safety["joints"].get(name, {}).get(own) or math.inf for name in names]
            return np.minimum(common, tighter)

        self.velocity = each("max_velocity_rad_s", "max_velocity_gripper_s", "max_velocity_rad_s")
        self.acceleration = each(
            "max_acceleration_rad_s2", "max_acceleration_gripper_s2", "max_acceleration_rad_s2"
        )
        margin = np.where(grippers, 0.0, safety["range_margin_rad"])
        self.lower, self.upper = np.array(ranges).T + np.stack((margin, -margin))

    def harder(self, now: Floats, speed: Floats, dt: float, *, may_stop: bool) -> NDArray[np.bool_]:
        """Whose speed changed from `speed` to `now` by more than it may in `dt`, and was not just stopped."""
        most = self.acceleration * dt + 1e-3
        wrong: NDArray[np.bool_] = np.abs(now - speed) > most
        if may_stop:
            slower = (np.abs(now) <= np.abs(speed) + SLACK) & (now * speed >= -SLACK)
            wrong &= ~slower & (np.abs(now) > most)
        return wrong

    def braked_harder(self, now: Floats, speed: Floats, rate_hz: float) -> NDArray[np.bool_]:
        """As `harder`, of a target that came late. Its servo was at the one before, or slowed down to it,
        while it was waited for: none could make up for that, and what it asks for itself is a period's.
        """
        slower = (np.abs(now) <= np.abs(speed) + SLACK) & (now * speed >= -SLACK)
        return self.harder(now, speed, 1.0 / rate_hz, may_stop=False) | ~slower

    def outside(
        self, target: Floats, last: Floats | None, here: Floats, where: str, names: list[str]
    ) -> list[str]:
        """Who is not finite or outside its range, and not on its way back from there."""
        if not np.isfinite(target).all():
            return [f"not finite: {where}"]
        beyond = np.maximum(self.lower - target, target - self.upper)
        before = here if last is None else last
        was = np.maximum(np.maximum(self.lower - before, before - self.upper), 0.0)
        return [
            f"range: {where} {names[i]} {target[i]:.4f}"
            for i in np.flatnonzero(beyond > was + SLACK).tolist()
        ]


# --- samples


def lost_samples(episode: Episode) -> list[str]:
    """Samples that the file should have: gaps in their numbers, counted drops, missing edges."""
    told = episode.metadata["episode"]
    found = [f"{topic}: {count} dropped" for topic, count in json.loads(told["drops"]).items() if count]
    for topic, count in json.loads(told["messages"]).items():
        if len(episode.numbers.get(topic, ())) != count:
            found.append(f"{topic}: says {count}, holds {len(episode.numbers.get(topic, ()))}")
    start_ns, end_ns = int(told["start_ns"]), int(told["end_ns"])
    for topic, numbers in episode.numbers.items():
        if topic.split("/")[1] in ("events", "control", "planner", "mask", "tip", "chunks") or topic.endswith(
            "/info"
        ):
            continue
        gaps = np.diff(numbers)
        if (gaps != 1).any():
            found.append(f"{topic}: {int((gaps != 1).sum())} gaps in its numbers")
        found += _edges(episode, topic, start_ns, end_ns)
    return found


def _edges(episode: Episode, topic: str, start_ns: int, end_ns: int) -> Iterator[str]:
    """A stream without a fault goes from the episode's start to its end."""
    period_ns = _period_ns(episode, topic)
    if not period_ns or _troubled(episode, topic):
        return
    times = episode.times[topic]
    if not times:
        yield f"{topic}: nothing at all"
    elif times[0] - start_ns > 2.5 * period_ns or end_ns - times[-1] > 2.5 * period_ns:
        lead, tail = (times[0] - start_ns) / 1e9, (end_ns - times[-1]) / 1e9
        yield f"{topic}: begins {lead:.3f} s after the episode, ends {tail:.3f} s before it"


def _period_ns(episode: Episode, topic: str) -> float:
    robot = episode.robot
    if topic.startswith("/cameras/"):
        return 1e9 / float(robot["cameras"][topic.split("/")[2]]["fps"])
    rates = {"/ticks": robot["control_rate_hz"], "/arm/state": robot["state_rate_hz"]}
    if robot.get("force"):
        rates["/force"] = robot["force"]["rate_hz"]
    return 1e9 / float(rates[topic]) if topic in rates else 0.0


def _troubled(episode: Episode, topic: str) -> bool:
    """Whether the device itself was away meanwhile, by the plan of the run."""
    device = topic.split("/")[2 if topic.startswith("/cameras/") else 1]
    return device in episode.metadata.get("troubled", {}).get("devices", "").split()


# --- motions


def unsafe_motions(episode_config: Mapping[str, Any], motion: Mapping[str, Any]) -> list[str]:
    """What the physics saw while the servos had torque: hard contacts, joints too fast."""
    driven = motion.get("driven", {})
    found = [
        f"contact with {kind}: {worst['n']:.1f} N at {worst['at_ns'] / 1e9:.2f} s, {worst['between']}"
        for kind, worst in driven.get("contacts", {}).items()
        if worst["n"] > CONTACT_N
    ]
    limit = episode_config["safety"]["max_velocity_rad_s"] * OVERSPEED
    found += [
        f"speed: {joint} {seen['peak']:.2f} rad/s at {seen['at_ns'] / 1e9:.2f} s"
        for joint, seen in driven.get("speed", {}).items()
        if seen["peak"] > limit and "gripper" not in joint
    ]
    return found


# --- how it ended


def wrong_ending(
    plan: Mapping[str, Any], code: int | None, summary: Mapping[str, Any], latched: bool
) -> list[str]:
    """An exit code or an outcome that is not what happened."""
    outcome, reason = summary["outcome"], str(summary["stop_reason"])
    expected: tuple[int, ...] = {"completed": (0,), "incomplete": (1,), "stopped": (3,)}[outcome]
    if outcome == "stopped" and reason.startswith("interrupted"):
        expected = (1,)
    if outcome == "stopped" and not summary["ticks"]:
        expected = (2, 3)
    found = [] if code in expected else [f"exit code {code} for {outcome!r} ({reason})"]
    if latched and outcome != "stopped":
        found.append(f"a stop was latched, and the run is {outcome!r}")
    if not reason:
        found.append("no stop_reason")
    calm = not plan["events"] and not plan.get("policy", {}).get("deeds") and not _planner_lies(plan)
    wild = plan.get("policy", {}).get("base") in ("wander", "remote")
    if calm and not wild and outcome == "stopped":
        found.append(f"stopped without any fault: {reason}")
    if calm and plan["mode"] != "grasp" and summary["duration_s"] < plan["seconds"] - EARLY_S:
        found.append(f"over after {summary['duration_s']:g} s without any fault: {reason}")
    return found + _false_success(plan, summary)


def _planner_lies(plan: Mapping[str, Any]) -> bool:
    return "planner.scene_reader.fault" in plan["options"]


def _false_success(plan: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    """The autonomous mode says that the table is clear; the judge, who knows, says no."""
    if plan["mode"] != "grasp" or summary["outcome"] != "completed" or "judge" not in summary:
        return []
    touched = any(event["device"] == "table" for event in plan["events"])
    if touched or plan["options"].get("planner.scene_reader.fault") == "wrong" or summary["judge"]["success"]:
        return []
    return [f"false success: {summary['judge']['objects_in_tray']} of {summary['judge']['objects_total']}"]


def judge(plan: Mapping[str, Any], result: Mapping[str, Any], runs: Path) -> Figures:
    """Everything about one run: ``violations`` by kind, and what was looked at."""
    found: dict[str, list[str]] = {
        "targets": [], "motions": [], "samples": [], "exit_codes": [], "summaries": [], "left_over": []
    }  # fmt: skip
    figures: Figures = {"ticks": 0, "targets": 0, "samples": 0, "episodes": 0, "violations": found}
    found["left_over"] += result.get("left_over", ())
    if result.get("error"):
        found["exit_codes"].append(f"the run raised {result['error']}")
    folder = next(iter(sorted(path for path in runs.iterdir() if not path.is_symlink())), None)
    path = None if folder is None else folder / "summary.json"
    if folder is None or path is None or not path.exists():
        found["summaries"].append("no summary")
        return figures
    summary = json.loads(path.read_text())
    found["summaries"] += [f"no {key}" for key in SUMMARY if key not in summary]
    figures |= {key: summary[key] for key in ("outcome", "stop_reason", "duration_s")}
    latched = _episodes(plan, folder, summary, figures, found)
    found["exit_codes"] += wrong_ending(plan, result["code"], summary, latched)
    config = json.loads((folder / "config.json").read_text())
    found["motions"] += unsafe_motions(config, result.get("motion", {}))
    figures["witnessed"] = bool(result.get("motion"))
    return figures


def _episodes(
    plan: Mapping[str, Any],
    folder: Path,
    summary: Mapping[str, Any],
    figures: Figures,
    found: dict[str, list[str]],
) -> bool:
    """Look through the recordings; whether a stop was latched in one."""
    paths = sorted((folder / "episodes").glob("*.mcap"))
    found["samples"] += [f"{path.name} is not finished" for path in (folder / "episodes").glob("*.open")]
    wanted = summary.get("recording", {}).get("recorded", 0)
    if wanted != len(paths):
        found["samples"].append(f"{wanted} episodes recorded, {len(paths)} files")
    latched = False
    for path in paths:
        try:
            episode = Episode(path)
        except Exception as error:
            found["samples"].append(f"{path.name}: {type(error).__name__}: {error}")
            continue
        episode.metadata["troubled"] = {"devices": " ".join(troubled(plan))}
        figures["episodes"] += 1
        figures["ticks"] += len(episode.ticks)
        figures["targets"] += sum(bool(tick["flags"] & POSTED) for tick in episode.ticks)
        figures["samples"] += sum(map(len, episode.numbers.values()))
        found["targets"] += wrong_targets(episode)
        found["samples"] += [f"{path.name} {lost}" for lost in lost_samples(episode)]
        latched |= any(tick["flags"] & STOPPED for tick in episode.ticks)
    return latched


def troubled(plan: Mapping[str, Any]) -> set[str]:
    """The devices that the plan itself keeps from delivering; a stalled process keeps them all."""
    wires = {"follower": "arm"}
    found = {wires.get(event["device"], event["device"]) for event in plan["events"]}
    if found & {"process", "end"}:
        found |= {"arm", "leader", "head", "wrist", "force", "ticks"}
    return found
