"""One episode of a recording, resampled: what every format writes, in the robot's units.

A row holds what a policy would have been given at that moment: of every sensor the newest sample that is not
from after the control tick whose target is the row's action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from policies.data.dataset import DatasetError
from policies.data.piloted import driven, pilots
from policies.data.recorded import DatasetShape, EpisodeRef, open_episode
from policies.data.sampling import SamplingOptions
from runtime.clock import NS_PER_S
from runtime.messages import Floats
from runtime.pilot import Pilot
from runtime.recording import resample
from runtime.recording.bounds import reading
from runtime.recording.resample import SampleGap, Stamps
from runtime.recording.tracks import device_topic

if TYPE_CHECKING:
    from runtime.recording.reader import Episode

TICKS, FORCE = "/ticks", "/force"
_STRETCH = 20


@dataclass(frozen=True, slots=True)
class SensorReport:
    """How well one sensor's samples fit the grid.

    Attributes:
        samples: in the recording. rate_hz: from the usual distance of two.
        largest_error_s, mean_error_s: how old the samples in rows are; of the action, how far from the row's
            time it was given.
        gaps: from the grid's start in seconds, and how long. What is missing before the sensor's first sample
            and after its last, within the episode, is one as well; the first then begins before the grid.
    """

    name: str
    samples: int
    rate_hz: float
    largest_error_s: float
    mean_error_s: float
    gaps: tuple[tuple[float, float], ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "rate_hz": round(self.rate_hz, 3),
            "largest_stamp_error_s": round(self.largest_error_s, 6),
            "mean_stamp_error_s": round(self.mean_error_s, 6),
            "gaps": [{"start_s": round(s, 6), "duration_s": round(d, 6)} for s, d in self.gaps],
        }


@dataclass(frozen=True, slots=True)
class Sampled:
    """An episode on the grid. Row `i` of everything belongs to ``times[i]``.

    Attributes:
        times: ``[T]`` nanoseconds, evenly spaced but for rows that were left out.
        observed: ``[T]`` the stamp of the control tick nearest to each.
        position, velocity, load: ``[T, D]``; action: ``[T, D]``.
        force: ``[T, K]`` or ``None``.
        frames: per camera, which of its frames each row shows. depths: the same of its depth images.
        masks: per camera, which of its tracked masks each row has, -1 where there is none.
        reports: by sensor.
        progress: told about every image handed out.
        intervention: ``[T]`` whether a person drove, where the data set says so.
        pilot: ``[T]`` who drove (`runtime.pilot.Pilot`), where the recording says so.
    """

    ref: EpisodeRef
    shape: DatasetShape
    times: Stamps
    observed: Stamps
    position: Floats
    velocity: Floats
    load: Floats
    action: Floats
    force: Floats | None
    frames: Mapping[str, NDArray[np.int64]]
    depths: Mapping[str, NDArray[np.int64]]
    masks: Mapping[str, NDArray[np.int64]]
    reports: Mapping[str, SensorReport]
    recording: Episode = field(repr=False)
    progress: Callable[[int], None] = field(default=lambda done: None, repr=False)
    intervention: NDArray[np.bool_] | None = None
    pilot: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.times)

    def only(self, kept: NDArray[np.bool_]) -> Sampled:
        """Some of its rows."""
        return replace(
            self,
            times=self.times[kept],
            observed=self.observed[kept],
            position=self.position[kept],
            velocity=self.velocity[kept],
            load=self.load[kept],
            action=self.action[kept],
            force=None if self.force is None else self.force[kept],
            frames={camera: index[kept] for camera, index in self.frames.items()},
            depths={camera: index[kept] for camera, index in self.depths.items()},
            masks={camera: index[kept] for camera, index in self.masks.items()},
            pilot=None if self.pilot is None else self.pilot[kept],
        )

    def colors(self, camera: str) -> Iterator[NDArray[np.uint8]]:
        """Row by row, RGB ``[H, W, 3]``; an image that several rows show is decoded once."""
        return self._each(self.frames[camera], lambda index: self.recording.color(camera, index))

    def depth_images(self, camera: str) -> Iterator[NDArray[np.uint16]]:
        """Row by row, ``[H, W]`` in device units, 0 meaning no reading."""
        return self._each(self.depths[camera], lambda index: self.recording.depth(camera, index))

    def mask_images(self, camera: str) -> Iterator[NDArray[np.uint8] | None]:
        """Row by row, ``[H, W]`` of 0 and 1, or ``None``."""
        return self._each(
            self.masks[camera], lambda index: None if index < 0 else self.recording.mask(camera, index)
        )

    def _each(self, indices: NDArray[np.int64], load: Callable[[int], Any]) -> Iterator[Any]:
        last, image = None, None
        for index in indices.tolist():
            if index != last:
                last, image = index, load(index)
            yield image
            self.progress(1)


class _Sampler:
    """Collects an episode's series, lays the grid, and fills it."""

    def __init__(self, ref: EpisodeRef, options: SamplingOptions) -> None:
        self.ref = ref
        self.options = options
        self.episode = open_episode(ref.path)
        self.shape = ref.shape
        self.reports: dict[str, SensorReport] = {}
        self.ticks = np.maximum.accumulate(self.episode.stamps(TICKS))

    def stamps(self, topic: str, sensor: str) -> Stamps:
        """The topic's stamps, the sensor's latency taken off; a clock that went back is held."""
        stamps = np.maximum.accumulate(self.episode.stamps(topic))
        return resample.shifted(stamps, self.options.latency_s.get(sensor, 0.0))

    def commands(self) -> dict[str, tuple[Stamps, Floats]]:
        """When which target was given, by what reports call it, side by side in the joint vector's order.

        `sent` has stamps of its own, for each arm: the bus writes a little later.
        """
        kind, topics = self.options.action or self.ref.action, self.episode.topics
        sent = {arm: f"{device_topic(arm)}/sent" for arm in self.shape.arms}
        if kind == "sent" and all(map(topics.get, sent.values())):
            alone = len(sent) == 1
            series = {
                "action" if alone else f"action {arm}": (
                    np.maximum.accumulate(self.episode.stamps(topic)),
                    np.asarray(self.episode.array(topic, "position"), np.float64),
                )
                for arm, topic in sent.items()
            }
        else:
            series = {"action": self._ticked(kind)}
        found = {name: resample.finite_rows(*each) for name, each in series.items()}
        if not all(len(stamps) for stamps, _ in found.values()):
            raise DatasetError(f"{self.ref.name}: no target was {kind} in this episode: nothing to learn")
        return found

    def _ticked(self, kind: str) -> tuple[Stamps, Floats]:
        values = np.asarray(self.episode.array(TICKS, kind), np.float64)
        if kind != "sent":
            return self.ticks, values
        own = np.asarray(self.episode.array(TICKS, "sent_stamp_ns"), np.int64)
        known = own >= 0
        return resample.distinct(own[known], values[known])

    def report(self, name: str, stamps: Stamps, at: Stamps, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Note how well `stamps` fit where sample `index` is used at each point of `at`; returns `index`."""
        error = np.abs(stamps[index] - at)
        period = resample.usual_period_ns(stamps)
        self.reports[name] = SensorReport(
            name,
            len(stamps),
            NS_PER_S / period if period else 0.0,
            float(error.max()) / NS_PER_S,
            float(error.mean()) / NS_PER_S,
            tuple(_relative(gap, int(at[0])) for gap in resample.gaps(stamps, *self.span())),
        )
        return index

    def seen(self, name: str, stamps: Stamps, at: Stamps) -> NDArray[np.int64]:
        """Which sample each row has."""
        return self.report(name, stamps, at, resample.newest(stamps, at))

    def given(self, name: str, stamps: Stamps, at: Stamps) -> NDArray[np.int64]:
        """Which target is each row's action."""
        within_ns = resample.usual_period_ns(self.ticks)
        return self.report(name, stamps, at, resample.answering(stamps, at, within_ns))

    def span(self) -> tuple[int, int]:
        """When the episode began and ended: as the recorder says, and no less than there are ticks of."""
        offset_ns = self.episode.offset_ns
        start_ns, end_ns = self.episode.start_ns - offset_ns, self.episode.end_ns - offset_ns
        return min(start_ns, int(self.ticks[0])), max(end_ns, int(self.ticks[-1]))

    def run(self) -> Sampled:
        cameras = self.shape.cameras
        arms = {arm: self.stamps(f"{device_topic(arm)}/state", arm) for arm in self.shape.arms}
        commands = self.commands()
        forces = self.forces()
        color = {c: self.stamps(f"/cameras/{c}/color", c) for c in cameras}
        depth = {c: self.stamps(f"/cameras/{c}/depth", c) for c in self.shape.depth_cameras}
        series = [*arms.items(), *color.items(), *((f"{c} depth", stamps) for c, stamps in depth.items())]
        times = self.lay_grid(series if forces is None else [*series, ("force", forces[0])])
        ticks = resample.nearest(self.ticks, times)
        at = self.ticks[ticks]
        self.report("control", self.ticks, times, ticks)
        states = {arm: self.seen(arm, stamps, at) for arm, stamps in arms.items()}
        action = np.concatenate(
            [values[self.given(name, stamps, at)] for name, (stamps, values) in commands.items()], axis=1
        )
        frames = {c: self.seen(c, stamps, at) for c, stamps in color.items()}
        depths = {c: self.seen(f"{c} depth", stamps, at) for c, stamps in depth.items()}
        position, velocity, load = (self.states(states, name) for name in ("position", "velocity", "load"))
        grippers = list(self.shape.grippers)
        position[:, grippers] = np.clip(position[:, grippers], 0.0, 1.0)
        whole = Sampled(
            ref=self.ref,
            shape=self.shape,
            times=times,
            observed=at,
            position=position,
            velocity=velocity,
            load=load,
            action=action,
            force=None if forces is None else forces[1][self.seen("force", forces[0], at)],
            frames=frames,
            depths=depths,
            masks={c: self.masks(c, color[c], frames[c]) for c in cameras if c in self.ref.masks},
            reports=self.reports,
            recording=self.episode,
            pilot=pilots(self.episode, ticks),
        )
        return self.marked(whole) if self.shape.intervention else whole

    def marked(self, whole: Sampled) -> Sampled:
        """The rows at which somebody drove, and who; recordings that do not say were teleoperated."""
        pilot = np.full(len(whole), Pilot.PERSON, np.int64) if whole.pilot is None else whole.pilot
        kept = driven(pilot, self.ref.name)
        return replace(whole.only(kept), intervention=pilot[kept] == Pilot.PERSON)

    def states(self, which: Mapping[str, NDArray[np.int64]], field: str) -> Floats:
        """``[T, D]`` of every arm's state."""
        parts = [
            np.asarray(self.episode.array(f"{device_topic(arm)}/state", field), np.float64)[index]
            for arm, index in which.items()
        ]
        return np.concatenate(parts, axis=1)

    def lay_grid(self, series: Sequence[tuple[str, Stamps]]) -> Stamps:
        """From the first tick at which every sensor has given something, to the last one before any ends."""
        first, last_to_begin = max((int(stamps[0]), name) for name, stamps in series)
        last, first_to_end = min((int(stamps[-1]), name) for name, stamps in series)
        inside = self.ticks[(self.ticks >= first) & (self.ticks <= last)]
        if len(inside) < 2:
            raise DatasetError(
                f"{self.ref.name}: the sensors have less than two control ticks in common; "
                "an episode needs all of them at once; "
                f"the last to begin is {last_to_begin}, the first to end {first_to_end}"
            )
        fps, start_ns, end_ns = self.options.fps, int(inside[0]), int(inside[-1])
        rows = (end_ns - start_ns) * fps / NS_PER_S
        if rows > _STRETCH * len(inside) * max(1.0, fps * resample.usual_period_ns(inside) / NS_PER_S):
            raise DatasetError(
                f"{self.ref.name}: {len(inside)} control ticks in {(end_ns - start_ns) / NS_PER_S:.0f} s; "
                "most of the episode is missing"
            )
        return resample.grid(start_ns, end_ns, fps)

    def forces(self) -> tuple[Stamps, Floats] | None:
        """Finite samples with their stamps, if forces are exported."""
        if not self.shape.force_channels:
            return None
        values = np.asarray(self.episode.array(FORCE, "force"), np.float64)
        known, values = resample.finite_rows(self.stamps(FORCE, "force"), values)
        if len(known) == 0:
            raise DatasetError(f"{self.ref.name}: /force has no finite sample")
        return known, values

    def masks(self, camera: str, color: Stamps, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """The mask of exactly the frame that is shown, else the newest one before it."""
        stamps = self.stamps(f"/mask/{camera}", camera)
        return np.searchsorted(stamps, color[frames], side="right").astype(np.int64) - 1


def _relative(gap: SampleGap, start_ns: int) -> tuple[float, float]:
    return (gap.start_ns - start_ns) / NS_PER_S, gap.seconds


def sample(ref: EpisodeRef, options: SamplingOptions) -> Sampled:
    """Resample the episode. Its file stays open for the images; close `Sampled.recording`.

    Raises:
        DatasetError: something that is exported is not in the recording.
    """
    sampler = _Sampler(ref, options)
    try:
        with reading(ref.path):
            return sampler.run()
    except BaseException:
        sampler.episode.close()
        raise
