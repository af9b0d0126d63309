"""``dexrun data convert``: a data set of any format into another, through the writers of exports.

Numbers stay as they are, and so does what is said of their units: joints become others only out of
recordings, which know the arm's calibration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dexrun.curation.pieces import assemble, pieces_of
from dexrun.export import target
from dexrun.export.errors import ExportError
from dexrun.export.formats import format_named
from dexrun.export.job import ExportPlan, Slot, export
from dexrun.export.options import ExportOptions
from policies.data.dataset import (
    ACTION,
    DEPTH,
    FORCE,
    IMAGES,
    INTERVENTION,
    MASKS,
    STATE,
    Array,
    DataEpisode,
    Dataset,
    DatasetError,
    Switches,
)
from policies.data.mcap import recorded_files
from policies.data.opened import OpenDataset
from policies.data.opening import open_dataset
from policies.data.recorded import CameraShape, DatasetShape, EpisodeRef
from policies.data.sampled import Sampled
from runtime.clock import NS_PER_S
from runtime.joints import JointLayout
from runtime.units import CONVENTIONS, JointUnits, UnitMap, joint_units

_MM = 0.001
_EVERY = 32
"""Pictures that are read at a time."""


class _AsTheyAre(EpisodeRef):
    """An episode whose numbers are in the units asked for already."""

    def units(self, units: UnitMap) -> JointUnits:
        return joint_units(self.joints, UnitMap())


@dataclass(frozen=True)
class _Rows(Sampled):
    """Rows of a data set, as the writers of exports take them."""

    source: DataEpisode | None = field(default=None, repr=False)

    def colors(self, camera: str) -> Iterator[Array]:
        return self._pictures(f"{IMAGES}{camera}")

    def depth_images(self, camera: str) -> Iterator[Array]:
        scale = self.shape.cameras[camera].depth_scale_m
        for image in self._pictures(f"{DEPTH}{camera}"):
            yield np.rint(image / np.float32(scale)).clip(0, 65535).astype(np.uint16)

    def mask_images(self, camera: str) -> Iterator[Array | None]:
        return self._pictures(f"{MASKS}{camera}")

    def _pictures(self, feature: str) -> Iterator[Array]:
        assert self.source is not None  # noqa: S101 - all are made with one
        for first in range(0, len(self), _EVERY):
            yield from self.source.read(feature, np.arange(first, min(len(self), first + _EVERY)))


def convert(path: Path, kind: str, to: Path, units: str | None = None, jobs: int = 0) -> str:
    """Write the data set at `path` as `kind` to `to`; returns what was done, in a line.

    Recordings are exported by `jobs` processes, 0 meaning one for each processor.

    Raises:
        DatasetError: it cannot be; why, and what can.
    """
    dataset = opened_whole(path)
    if dataset.format == "mcap" and kind != "mcap":
        options = ExportOptions(
            fps=dataset.rate_hz,
            units=_units(units),
            labels=("success", "failure", "none"),
            missing_mask="zeros",
            jobs=jobs,
        )
        outcome = export(recorded_files(path), format_named(kind), to, options)
        left = "".join(f"; {name} left out: {why}" for name, why in outcome.left_out.skipped.items())
        return f"{to}: {len(outcome.slots)} episodes as {kind}{left}"
    if units is not None:
        raise DatasetError(
            f"{path}: joints of a {dataset.format} data set stay in their units; only recordings know the "
            "arm's calibration"
        )
    if kind == dataset.format:
        with target.building(to, file=path.is_file()) as draft:
            made = draft / (target.RESULT if path.is_file() else "whole")
            assemble(pieces_of(dataset), made)
            for entry in () if path.is_file() else list(made.iterdir()):
                entry.rename(draft / entry.name)
        return f"{to}: {len(dataset.episodes)} episodes, as they were"
    _possible(dataset, kind)
    _written(dataset, kind, to)
    return (
        f"{to}: {len(dataset.episodes)} episodes as {kind}, numbers in {_unit(dataset) or 'the same units'}"
    )


def opened_whole(path: Path) -> OpenDataset:
    """The data set with everything that it has."""
    switches = Switches()
    for name in ("use_depth", "use_force", "use_mask"):
        wider = Switches(**{**{n: getattr(switches, n) for n in Switches.__slots__}, name: True})
        try:
            open_dataset(path, wider).close()
        except DatasetError:
            continue
        switches = wider
    return open_dataset(path, switches)


def _units(name: str | None) -> UnitMap | None:
    return None if name is None else UnitMap.model_validate(name)


def _unit(dataset: Dataset) -> str:
    return dataset.features[STATE].unit


def _possible(dataset: OpenDataset, kind: str) -> None:
    if kind == "umi-zarr":
        raise DatasetError(
            f"{dataset.path}: umi-zarr holds poses, worked out from a known arm's joints; "
            "convert the recording"
        )
    if kind == "mcap":
        raise DatasetError(
            f"{dataset.path}: a recording is what an arm did, stamped sensor by sensor; a data set's "
            "rows say that no more. Accepted: lerobot-v3, lerobot-v2.1, dexgrasp-zarr, act-hdf5, dexvla-hdf5"
        )


def _written(dataset: OpenDataset, kind: str, to: Path) -> None:
    made = format_named(kind)
    convention = _unit(dataset)
    options = ExportOptions(
        fps=dataset.rate_hz,
        units=UnitMap.model_validate(convention) if convention in CONVENTIONS else UnitMap(),
        missing_mask="zeros",
        robot_type=str(dataset.about.get("robot_type") or "") or "robot",
        depth="video" if any(name.startswith(DEPTH) for name in dataset.features) else "auto",
        image_size=224,
        jobs=1,
    )
    shape = _shape(dataset)
    slots: list[Slot] = []
    start = 0
    for episode in dataset.episodes:
        ref = _ref(dataset, episode, shape, made.cameras(shape, options))
        slots.append(Slot(ref, len(slots), start, episode.length, {}, np.zeros((2, len(shape.joints)))))
        start += episode.length
    with target.building(to, file=made.file) as draft:
        plan = ExportPlan(tuple(slots), options, draft)
        prepared = made.start(plan)
        results = []
        for slot, episode in zip(slots, dataset.episodes, strict=True):
            rows = _sampled(slot.ref, episode, dataset)
            tasks = made.tasks(slot.ref, options)
            results.append({task: made.work(task, rows, slot, plan, prepared) for task in tasks})
        made.finish(plan, prepared, results)
        _units_not_said(draft, kind, convention)


def _units_not_said(draft: Path, kind: str, convention: str) -> None:
    """A data set that does not say its units is not made to say any."""
    file = draft / "meta" / "info.json"
    if convention in CONVENTIONS or not kind.startswith("lerobot") or not file.is_file():
        return
    info = json.loads(file.read_text(encoding="utf-8"))
    info.pop("units", None)
    file.write_text(json.dumps(info, indent=4, ensure_ascii=False), encoding="utf-8")


def _shape(dataset: OpenDataset) -> DatasetShape:
    state, action = dataset.features[STATE], dataset.features[ACTION]
    if state.shape != action.shape:
        raise DatasetError(
            f"{dataset.path}: {STATE} has {state.shape[0]} numbers, {ACTION} {action.shape[0]}; the formats "
            "here have one joint vector for both"
        )
    names = state.names or tuple(f"joint_{i}" for i in range(state.shape[0]))
    cameras = {}
    for name, about in dataset.features.items():
        if name.startswith(IMAGES):
            camera = name.removeprefix(IMAGES)
            depth = f"{DEPTH}{camera}" in dataset.features
            said = dataset.about.get("cameras", {})
            known = said.get(camera) if isinstance(said, dict) else None
            scale = (known.get("depth_scale_m") if isinstance(known, dict) else 0.0) or _MM
            cameras[camera] = CameraShape(about.shape[0], about.shape[1], depth, scale if depth else 0.0)
    force = dataset.features[FORCE].shape[0] if FORCE in dataset.features else 0
    return DatasetShape(
        joints=names,
        ranges=((-1.0, 1.0),) * len(names),
        force_channels=force,
        cameras=cameras,
        grippers=(),
        recorded=("arm", *(("force",) if force else ()), *cameras),
        intervention=INTERVENTION in dataset.features,
    )


def _ref(dataset: OpenDataset, episode: DataEpisode, shape: DatasetShape, cameras: Any) -> EpisodeRef:
    layout = JointLayout(shape.joints, np.array(shape.ranges), ())
    masks = tuple(c for c in cameras if f"{MASKS}{c}" in dataset.features)
    return _AsTheyAre(
        path=dataset.path,
        name=episode.name,
        index=episode.number,
        task=episode.task,
        label=episode.label or "none",
        simulated=True,  # so that ACT's loader does not shift actions that belong to their rows
        shape=shape,
        joints=layout,
        masks=masks,
    )


def _sampled(ref: EpisodeRef, episode: DataEpisode, dataset: OpenDataset) -> Sampled:
    rows = np.arange(episode.length)
    position, action = (episode.read(name, rows).astype(np.float64) for name in (STATE, ACTION))
    for name, values in ((STATE, position), (ACTION, action)):
        if not np.isfinite(values).all():
            raise ExportError(f"{episode.name}: {name} is not finite; dexrun data drop leaves it out")
    times = np.rint(rows * (NS_PER_S / dataset.rate_hz)).astype(np.int64)
    velocity = (
        np.gradient(position, 1.0 / dataset.rate_hz, axis=0) if len(rows) > 1 else np.zeros_like(position)
    )
    force = episode.read(FORCE, rows).astype(np.float64) if FORCE in dataset.features else None
    marked = episode.read(INTERVENTION, rows) if INTERVENTION in dataset.features else None
    nothing: Any = SimpleNamespace(topics={}, close=lambda: None)
    told: Callable[[int], None] = lambda done: None  # noqa: E731 - of nobody
    return _Rows(
        ref=ref, shape=ref.shape, times=times, observed=times, position=position, velocity=velocity,
        load=np.zeros_like(position), action=action, force=force,
        frames=dict.fromkeys(ref.shape.cameras, rows),
        depths=dict.fromkeys(ref.shape.depth_cameras, rows),
        masks=dict.fromkeys(ref.masks, rows), reports={}, recording=nothing, progress=told,
        intervention=marked, source=episode,
    )  # fmt: skip
