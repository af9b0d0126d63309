"""What may be wrong with demonstrations: each check looks at every episode and names those it objects to.

Numbers are compared within the data set, since a joint's usual jerk or an episode's usual length is the
task's, not ours: an episode is told from the others by several times their median, never by a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policies.data.dataset import ACTION, IMAGES, STATE, TIP, Array, DataEpisode, Dataset, DatasetError
from runtime.messages import Floats

FEWEST = 4
"""Episodes that there must be to tell an unusual one from the rest."""
_JERKS, _LENGTHS = 3.0, 3.0
"""Times the median."""
_STILL_SPAN, _STILL_S = 0.002, 2.0
"""Of a joint's span in a second, below which it stands still; and for how long it may."""
_DEVIATION, _FOLLOWED = 0.25, 0.15
"""Of a joint's span: how far the arm may be from where it was sent, at its worst and on average."""
_LAG_S = 0.5
_DARK = 12.0
_LOOKS = 10
_FROZEN = 0.25
"""Mean grey levels by which pictures that are seconds apart must differ."""
_LARGEST = {"rad": 7.0, "lerobot_degrees": 400.0, "lerobot_percent": 150.0, "symmetric": 1.5}
"""What no joint exceeds, by unit."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        episodes: by number, what it is; whole data sets are -1.
    """

    check: str
    episodes: Mapping[int, str]

    def line(self, names: Sequence[str]) -> str:
        """For people."""
        if not self.episodes:
            return f"{self.check}: nothing found"
        told = [f"{names[n]}: {what}" if n >= 0 else what for n, what in self.episodes.items()]
        of = f"{len(self.episodes)} of {len(names)} episodes: " if -1 not in self.episodes else ""
        return f"{self.check}: {of}{'; '.join(told)}"


@dataclass
class Looked:
    """What was read of an episode once, for all checks.

    Attributes:
        state, action: ``[T, D]``, ``[T, A]``. brightness: by camera, the mean grey level of every picture
            that was looked at. change: how much each differs from the one before.
        pictures: by camera, one of them, small. error: why the episode cannot be read.
    """

    number: int
    name: str
    length: int
    task: str
    label: str
    state: Floats
    action: Floats
    brightness: dict[str, list[float]] = field(default_factory=dict)
    change: dict[str, list[float]] = field(default_factory=dict)
    pictures: dict[str, Array] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


def look(dataset: Dataset, told: Callable[[int], None] = lambda done: None) -> list[Looked]:
    """Read what the checks need: all vectors, and of each camera some pictures of every episode."""
    cameras = [name for name in dataset.features if name.startswith(IMAGES)]
    out = []
    for episode in dataset.episodes:
        out.append(_looked(episode, cameras))
        told(len(out))
    return out


def _looked(episode: DataEpisode, cameras: Sequence[str]) -> Looked:
    rows, none = np.arange(episode.length), np.zeros((0, 1))
    one = Looked(
        episode.number, episode.name, episode.length, episode.task, episode.label, none, none,
        lost=getattr(episode, "lost", {}),
    )  # fmt: skip
    try:
        one.state, one.action = (episode.read(name, rows).astype(np.float64) for name in (STATE, ACTION))
        at = np.unique(np.linspace(0, episode.length - 1, _LOOKS).astype(np.int64))
        for name in cameras:
            _look_at(one, name.removeprefix(IMAGES), episode.read(name, at))
    except DatasetError as error:
        one.error = str(error)
    return one


def _look_at(one: Looked, camera: str, images: Array) -> None:
    one.brightness[camera] = images.reshape(len(images), -1).mean(axis=1).tolist()
    thin = images[:, ::2, ::2].astype(np.int16)
    steps = np.abs(np.diff(thin, axis=0))
    one.change[camera] = steps.reshape(len(steps), -1).mean(axis=1).tolist()
    middle = images[len(images) // 2]
    step = max(1, middle.shape[1] // 160)
    one.pictures[camera] = np.ascontiguousarray(middle[::step, ::step])


def check(dataset: Dataset, looked: Sequence[Looked]) -> list[Finding]:
    """Every check, in the order in which they are told."""
    whole = [each for each in looked if not each.error]
    damaged = {each.number: each.error for each in looked if each.error}
    finite = [each for each in whole if np.isfinite(each.state).all() and np.isfinite(each.action).all()]
    span = _span(finite)
    rate, joints = dataset.rate_hz, _Joints.of(dataset)
    return [
        Finding("unreadable", {**damaged, **_left_out(dataset)}),
        Finding("not finite", _not_finite(whole)),
        Finding("dropped frames", {e.number: _joined(e.lost) for e in looked if e.lost}),
        Finding("jerk", _jerky(finite, rate)),
        Finding("stillness", _still(finite, span, rate)),
        Finding("leader-follower deviation", _deviating(finite, span, rate, joints)),
        Finding("action not followed", _not_followed(finite, span, rate, joints)),
        Finding("length", _odd_lengths(whole, rate)),
        Finding("camera dark", _dark(whole)),
        Finding("camera frozen", _frozen(whole, span)),
        Finding("units", _units(dataset, finite)),
        Finding("statistics", _statistics(dataset, finite)),
    ]


@dataclass(frozen=True)
class _Joints:
    """What joints are called, and which are grippers: those stop at what they hold."""

    names: tuple[str, ...]
    grippers: frozenset[int]

    @classmethod
    def of(cls, dataset: Dataset) -> _Joints:
        names = dataset.features[STATE].names
        said = dataset.about.get("grippers", ())
        return cls(names, frozenset([*said, *(i for i, name in enumerate(names) if "gripper" in name)]))

    def called(self, joint: int) -> str:
        return self.names[joint] if joint < len(self.names) else f"joint {joint}"

    def arm(self, values: Floats) -> Floats:
        """`values` ``[D]``, 0 for grippers."""
        return np.array([0.0 if i in self.grippers else v for i, v in enumerate(values.tolist())])


def _joined(parts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {what}" for name, what in parts.items())


def _left_out(dataset: Dataset) -> dict[int, str]:
    told = "; ".join(f"{name}: {why}" for name, why in dataset.left_out.items())
    return {-1: told} if told else {}


def _span(looked: Sequence[Looked]) -> Floats:
    """How far each joint goes in the whole data set, ``[D]``; one that does not move counts as 1."""
    if not looked:
        return np.ones(1)
    span = np.max([e.state.max(axis=0) for e in looked], axis=0) - np.min(
        [e.state.min(axis=0) for e in looked], axis=0
    )
    return np.asarray(np.where(span > 1e-6, span, 1.0))


def _not_finite(looked: Sequence[Looked]) -> dict[int, str]:
    found = {}
    for each in looked:
        for name, values in (("state", each.state), ("action", each.action)):
            bad = ~np.isfinite(values).all(axis=1)
            if bad.any() and each.number not in found:
                found[each.number] = f"{int(bad.sum())} rows of {name}, the first is {int(np.argmax(bad))}"
    return found


def _jerky(looked: Sequence[Looked], rate: float) -> dict[int, str]:
    """The third derivative of where the arm was, against the median of all episodes."""
    values = {}
    for each in looked:
        if each.length > 8:
            third = np.diff(each.state, n=3, axis=0) * rate**3
            values[each.number] = float(np.sqrt(np.mean(third**2)))
    if len(values) < FEWEST:
        return {}
    usual = max(float(np.median(list(values.values()))), 1e-9)
    return {n: f"{v / usual:.1f} times the usual" for n, v in values.items() if v > _JERKS * usual}


def _still(looked: Sequence[Looked], span: Floats, rate: float) -> dict[int, str]:
    found = {}
    for each in looked:
        window = max(1, round(rate / 2))
        if each.length <= window:
            continue
        speed = np.abs(each.state[window:] - each.state[:-window]) / span * rate / window
        start, length = _longest(np.all(speed < _STILL_SPAN, axis=1))
        seconds = (length + window) / rate if length else 0.0
        if seconds > _STILL_S:
            found[each.number] = f"{seconds:.1f} s from {start / rate:.1f} s on"
    return found


def _longest(flags: Array) -> tuple[int, int]:
    """Where the longest run of true begins, and its length."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    if not len(edges):
        return 0, 0
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    longest = int(np.argmax(lengths))
    return int(starts[longest]), int(lengths[longest])


def _residuals(each: Looked, span: Floats, rate: float) -> Floats:
    """How far the arm was from where it was sent, in spans ``[T', D]``, at the delay that fits best."""
    best: Floats | None = None
    for lag in range(min(round(_LAG_S * rate) + 1, max(1, each.length // 2))):
        error = np.abs(each.state[lag:] - each.action[: len(each.action) - lag]) / span
        if best is None or error.mean() < best.mean():
            best = error
    assert best is not None  # noqa: S101 - there is at least the delay of 0
    return best


def _comparable(each: Looked) -> bool:
    return each.state.shape == each.action.shape and each.length > 2


def _deviating(looked: Sequence[Looked], span: Floats, rate: float, joints: _Joints) -> dict[int, str]:
    found = {}
    for each in filter(_comparable, looked):
        worst = joints.arm(np.quantile(_residuals(each, span, rate), 0.99, axis=0))
        joint = int(np.argmax(worst))
        if worst[joint] > _DEVIATION:
            found[each.number] = f"{joints.called(joint)} is {worst[joint]:.0%} of its span from its target"
    return found


def _not_followed(looked: Sequence[Looked], span: Floats, rate: float, joints: _Joints) -> dict[int, str]:
    found = {}
    for each in filter(_comparable, looked):
        mean = joints.arm(_residuals(each, span, rate).mean(axis=0))
        moved = np.ptp(each.action, axis=0) / span
        joint = int(np.argmax(np.where(moved > _FOLLOWED, mean, 0.0)))
        if mean[joint] > _FOLLOWED and moved[joint] > _FOLLOWED:
            found[each.number] = f"{joints.called(joint)} is {mean[joint]:.0%} of its span off on average"
    return found


def _odd_lengths(looked: Sequence[Looked], rate: float) -> dict[int, str]:
    if len(looked) < FEWEST:
        return {}
    usual = float(np.median([each.length for each in looked]))
    return {
        each.number: f"{each.length / rate:.1f} s, usual are {usual / rate:.1f} s"
        for each in looked
        if not usual / _LENGTHS <= each.length <= usual * _LENGTHS
    }


def _dark(looked: Sequence[Looked]) -> dict[int, str]:
    found = {}
    for each in looked:
        dark = {c: np.mean(np.array(v) < _DARK) for c, v in each.brightness.items() if v}
        told = {camera: f"{share:.0%} of the pictures" for camera, share in dark.items() if share > 0.2}
        if told:
            found[each.number] = _joined(told)
    return found


def _frozen(looked: Sequence[Looked], span: Floats) -> dict[int, str]:
    """Pictures that stay the same while the arm moves."""
    found = {}
    for each in looked:
        at = np.unique(np.linspace(0, each.length - 1, _LOOKS).astype(np.int64))
        moved = np.abs(np.diff(each.state[at], axis=0)).max(axis=1, initial=0.0, where=np.isfinite(span))
        moves = moved > 0.02 * float(np.median(span))
        told = {}
        for camera, change in each.change.items():
            same = (np.array(change) < _FROZEN) & moves[: len(change)]
            _, run = _longest(same)
            if run >= 3 or (run and run == moves.sum()):
                told[camera] = f"the same over {run} of {len(change)} looks while the arm moved"
        if told:
            found[each.number] = _joined(told)
    return found


def _units(dataset: Dataset, looked: Sequence[Looked]) -> dict[int, str]:
    found = {}
    for name in (STATE, ACTION):
        unit = dataset.features[name].unit
        most = _LARGEST.get(unit)
        for each in looked if most else ():
            largest = float(np.abs(each.state if name == STATE else each.action).max())
            if largest > (most or 0.0):
                found[each.number] = f"{name} reaches {largest:.4g}, which {unit} do not"
    return found


def _statistics(dataset: Dataset, looked: Sequence[Looked]) -> dict[int, str]:
    """The statistics that the data set brings, against its rows."""
    if not dataset.format.startswith("lerobot") or not looked:
        return {}
    from policies.data.lerobot import stored_statistics

    told = []
    for name, said in stored_statistics(dataset.path).items():
        if name not in dataset.features or name == TIP or not {"min", "max"} <= said.keys():
            continue
        there = dataset.statistics(name)
        size = np.maximum(there.maximum - there.minimum, 1e-6)
        if said["min"].shape != there.minimum.shape:
            told.append(f"{name} has {there.minimum.size} numbers, its statistics {said['min'].size}")
            continue
        off = np.maximum(np.abs(said["min"] - there.minimum), np.abs(said["max"] - there.maximum)) / size
        if off.max() > 0.05:
            i = int(np.argmax(off))
            told.append(
                f"{name}[{i}] is {there.minimum[i]:.4g} to {there.maximum[i]:.4g}, and meta/stats.json says "
                f"{said['min'][i]:.4g} to {said['max'][i]:.4g}: they do not belong to these rows"
            )
    return {-1: "; ".join(told)} if told else {}


def as_json(findings: Sequence[Finding], looked: Sequence[Looked]) -> dict[str, Any]:
    """For programs."""
    names = [each.name for each in looked]
    return {
        each.check: [
            {"episode": n, "name": names[n] if n >= 0 else "", "what": what}
            for n, what in each.episodes.items()
        ]
        for each in findings
    }
