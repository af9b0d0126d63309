"""In which frames of an episode the object is looked for, and what is being done when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexrun.annotation.options import AnnotateOptions
from planner.perception.naming import ShownMoment
from policies.data.recorded import DatasetShape, EpisodeRef
from policies.data.sampling import SamplingOptions
from runtime.clock import NS_PER_S
from runtime.holding import held_rows, longest_hold
from runtime.messages import Floats
from runtime.recording.annotations import Substep, fingerprint
from runtime.recording.reader import Episode

Times = NDArray[np.int64]
_FIRST = 5
"""Where nothing is held, it is looked for at so many moments of the first second, until it is found."""
_OF_HOLD = (0.5, 0.25, 0.75, 0.1)
"""How far into a hold it is looked for, first in its middle."""
_CLOSING_S = 0.6
"""So long before something is held the gripper is closing on it."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A frame that is looked at, the other camera's then (-1: none), and whether something is held."""

    frame: int
    wrist: int = -1
    held: bool = False


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of an episode before any picture is looked at.

    Attributes:
        camera: whose frames are annotated. frames: how many. size: of its pictures, height and width.
        wrist: the other camera; empty without. moments: where the object is looked for, in that order.
        steps: since when (nanoseconds since the epoch) what is being done: ``reach``, ``grasp``, ...
        most_bytes: of one picture of either camera.
        known_by: when its first frame was, and the CRC-32 of its bytes.
    """

    camera: str
    frames: int
    size: tuple[int, int]
    wrist: str
    moments: tuple[Moment, ...]
    steps: tuple[tuple[int, str], ...]
    most_bytes: int
    known_by: tuple[int, int]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Survey:
        """The inverse of `as_json`."""
        height, width = values["size"]
        return cls(
            values["camera"],
            values["frames"],
            (height, width),
            values["wrist"],
            tuple(Moment(**each) for each in values["moments"]),
            tuple((int(time_ns), str(step)) for time_ns, step in values["steps"]),
            values["most_bytes"],
            (values["known_by"][0], values["known_by"][1]),
        )


def survey(ref: EpisodeRef, episode: Episode, options: AnnotateOptions) -> Survey:
    """Look at an episode's numbers.

    Raises:
        DatasetError: there is no such camera.
        RecordingError: the file is damaged.
    """
    chosen = SamplingOptions(head=options.camera)
    camera, wrist = ref.shape.head(chosen), ref.shape.wrist(chosen)
    times = episode.times(f"/cameras/{camera}/color")
    other = episode.times(f"/cameras/{wrist}/color") if wrist else np.empty(0, np.int64)
    holds = _holds(episode, ref.shape)
    size = ref.shape.cameras[camera]
    return Survey(
        camera,
        len(times),
        (size.height, size.width),
        wrist,
        _moments(times, other, holds, options),
        tuple(_steps(int(times[0]) if len(times) else 0, holds)),
        max(3 * each.height * each.width for each in (size, ref.shape.cameras[wrist or camera])),
        fingerprint(episode, camera, 0) if len(times) else (0, 0),
    )


def look(episode: Episode, about: Survey, moment: Moment) -> ShownMoment:
    """The pictures of a moment."""
    wrist = episode.color(about.wrist, moment.wrist) if moment.wrist >= 0 else None
    return ShownMoment(episode.color(about.camera, moment.frame), wrist, moment.held)


def _holds(episode: Episode, shape: DatasetShape) -> list[tuple[int, int]]:
    """From when to when (since the epoch) a gripper held something, in order; of all grippers."""
    ticks = episode.columns("/ticks")
    times: Times = ticks["stamp_ns"]
    force = _force_at(episode, times)
    found: list[tuple[int, int]] = []
    for joint in shape.grippers:
        position, target = (np.asarray(ticks[name], np.float64)[:, joint] for name in ("position", "sent"))
        known = np.isfinite(position) & np.isfinite(target)
        if not known.any():
            continue
        felt = None if force is None else force[known]
        rows = held_rows(times[known], position[known], target[known], felt)
        found += [(int(times[known][a]), int(times[known][b - 1])) for a, b in rows]
    return [(a + episode.offset_ns, b + episode.offset_ns) for a, b in sorted(found)]


def _force_at(episode: Episode, times: Times) -> Floats | None:
    """``[T, K]`` what the sensor at the fingers had read by then; ``None`` without one."""
    if not episode.topics.get("/force"):
        return None
    stamps = np.maximum.accumulate(episode.stamps("/force"))
    values = np.nan_to_num(np.asarray(episode.array("/force", "force"), np.float64))
    rows = np.clip(np.searchsorted(stamps, times, side="right") - 1, 0, len(stamps) - 1)
    return np.asarray(values[rows])


def _moments(
    times: Times, other: Times, holds: list[tuple[int, int]], options: AnnotateOptions
) -> tuple[Moment, ...]:
    """Frames in the order in which they are looked at."""
    if not len(times):
        return ()

    def at(time_ns: int, *, held: bool = False) -> Moment:
        frame = int(np.clip(np.searchsorted(times, time_ns, side="right") - 1, 0, len(times) - 1))
        wrist = int(np.searchsorted(other, times[frame], side="right") - 1) if len(other) else -1
        return Moment(frame, wrist, held)

    if isinstance(options.moment, float):
        return (at(int(times[0]) + round(options.moment * NS_PER_S)),)
    found: list[Moment] = []
    bounds = np.array(holds, np.int64).reshape(-1, 2)
    longest = longest_hold(bounds.reshape(-1), [(2 * i, 2 * i + 2) for i in range(len(bounds))])
    if options.moment == "held" and longest is not None:
        first, last = holds[longest[0] // 2]
        found = [at(first + round(share * (last - first)), held=True) for share in _OF_HOLD]
    last = min(int(times[0]) + NS_PER_S, int(times[-1]))
    found += [at(time_ns) for time_ns in np.linspace(int(times[0]), last, _FIRST).astype(np.int64).tolist()]
    return tuple(dict.fromkeys(found))


def _steps(start_ns: int, holds: list[tuple[int, int]]) -> list[tuple[int, str]]:
    """What is being done since when, by the gripper: reach, grasp, carry, and go on after it was let go."""
    found = [(start_ns, "reach")]
    for first, last in holds:
        found.append((max(found[-1][0] + 1, first - round(_CLOSING_S * NS_PER_S)), "grasp"))
        found.append((first, "carry"))
        found.append((last + 1, "leave"))
    return found


_WORDS = {
    "reach": "Reach for the {}.",
    "grasp": "Close the gripper on the {}.",
    "carry": "Hold the {} and carry it.",
    "leave": "Let go of the {} and move away.",
}


def substeps(about: Survey, phrase: str) -> tuple[Substep, ...]:
    """The episode's steps in words, of the object so called."""
    name = phrase.removeprefix("the ").strip() or "object"
    return tuple(Substep(time_ns, _WORDS[step].format(name)) for time_ns, step in about.steps)
