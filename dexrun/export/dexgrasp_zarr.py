"""DexGraspVLA's data sets: a replay buffer as a zarr v2 directory store.

``data/action`` and ``data/right_state`` float32 ``[K, D]`` scaled to [-1, 1] over the joints' limits,
``data/rgbm`` uint8 ``[K, H, W, 4]`` of the head camera, the last channel 1 on the object of the instruction,
``data/right_cam_img`` uint8 ``[K, h, w, 3]`` of the wrist camera, ``meta/episode_ends`` int64.

Colour is in the order **BGR**, as in the public data: DexGraspVLA's image encoder swaps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.rows import masks_of_rows
from dexrun.export import zarr_v2
from dexrun.export.errors import BadEpisodeError, ExportError
from dexrun.export.job import ExportPlan, Slot, report_of
from dexrun.export.options import ExportOptions
from dexrun.export.zarr_v2 import ZarrArray
from policies.data.piloted import intervention
from policies.data.recorded import DatasetShape, EpisodeRef
from policies.data.sampled import Sampled
from runtime.interfaces import PerceptionError
from runtime.units import UnitMap

UNITS = UnitMap(convention="symmetric")
HEAD, WRIST = "rgbm", "right_cam_img"


class DexGraspZarr:
    """The format."""

    name = "dexgrasp-zarr"
    file = False
    appends = False
    force = False

    def cameras(self, shape: DatasetShape, options: ExportOptions) -> Sequence[str]:
        return [name for name in _cameras(shape, options).values() if name]

    def depth(self, options: ExportOptions) -> bool:
        return False

    def tasks(self, ref: EpisodeRef, options: ExportOptions) -> tuple[str, ...]:
        for part, camera in _cameras(ref.shape, options).items():
            if not camera:
                raise ExportError(
                    f"{ref.name}: {self.name} needs a camera for {part}; name it with --head or --wrist"
                )
        if options.missing_mask == "refuse" and _cameras(ref.shape, options)[HEAD] not in ref.masks:
            raise ExportError(
                f"{ref.name}: no tracked masks were recorded; --missing-mask zeros exports without"
            )
        ref.units(options.units or UNITS)
        return ("rows", f"image:{HEAD}", f"image:{WRIST}")

    def start(self, plan: ExportPlan) -> None:
        shape, options = plan.slots[0].ref.shape, plan.options
        ends = np.cumsum([slot.length for slot in plan.slots]).astype(np.int64)
        about = {
            "channel_order": "BGR",
            "joints": list(shape.joints),
            "units": (options.units or UNITS).said(),
            "cameras": _cameras(shape, options),
            "fps": options.fps,
            "masks": _masks_known(plan),
            "dexrun": report_of(plan),
        }
        zarr_v2.replay_buffer(plan.folder, about, ends)
        for key in (HEAD, WRIST):
            _images(plan, key).write_metadata()

    def work(self, task: str, sampled: Sampled, slot: Slot, plan: ExportPlan, prepared: Any) -> Any:
        if task == "rows":
            units = slot.ref.units(plan.options.units or UNITS)
            rows = {"action": sampled.action, "right_state": sampled.position}
            found = {key: units.to_policy(values).astype(np.float32) for key, values in rows.items()}
            return found | intervention(sampled.intervention)
        key = task.removeprefix("image:")
        array = _images(plan, key)
        camera = _cameras(slot.ref.shape, plan.options)[key]
        pictures = _with_masks(sampled, camera, plan.options) if key == HEAD else _bgr(sampled, camera)
        for row, picture in enumerate(pictures, slot.start):
            array.write_chunk(row, picture[None])
        return None

    def finish(self, plan: ExportPlan, prepared: Any, results: Sequence[Mapping[str, Any]]) -> None:
        for key in results[0]["rows"]:
            values = np.concatenate([result["rows"][key] for result in results])
            zarr_v2.whole(plan.folder / "data" / key, values)


def _masks_known(plan: ExportPlan) -> str:
    """What the fourth channel is worth."""
    head = _cameras(plan.slots[0].ref.shape, plan.options)[HEAD]
    annotated = sum(head in slot.ref.annotated for slot in plan.slots)
    known = sum(head in slot.ref.masks for slot in plan.slots) - annotated
    missing = len(plan.slots) - known - annotated
    how = "tracked when exporting" if plan.options.missing_mask == "track" else "empty: none were recorded"
    parts = ((known, "tracked when recording"), (annotated, "annotated"), (missing, how))
    return "; ".join(f"{count} episodes: {how}" for count, how in parts if count)


def _cameras(shape: DatasetShape, options: ExportOptions) -> dict[str, str]:
    return {HEAD: shape.head(options), WRIST: shape.wrist(options)}


def _images(plan: ExportPlan, key: str) -> ZarrArray:
    shape = plan.slots[0].ref.shape
    camera = shape.cameras[_cameras(shape, plan.options)[key]]
    size = (camera.height, camera.width, 4 if key == HEAD else 3)
    return zarr_v2.images(Path(plan.folder, "data", key), plan.rows, size)


def _bgr(sampled: Sampled, camera: str) -> Any:
    return (image[..., ::-1] for image in sampled.colors(camera))


def _with_masks(sampled: Sampled, camera: str, options: ExportOptions) -> Any:
    """BGR and the mask: as recorded, tracked now, or zeros."""
    masks: Any = repeat(None)
    if camera in sampled.masks:
        masks = sampled.mask_images(camera)
    elif options.missing_mask == "track":
        masks = _tracked(sampled, camera, options)
    for image, mask in zip(sampled.colors(camera), masks, strict=False):
        plane = np.zeros(image.shape[:2], np.uint8) if mask is None else mask
        yield np.concatenate([image[..., ::-1], plane[..., None]], axis=-1)


def _tracked(sampled: Sampled, camera: str, options: ExportOptions) -> Any:
    """Of an episode that nobody annotated.

    Raises:
        BadEpisodeError: there is no telling what the object is.
    """
    asked = AnnotateOptions(camera=camera, vlm_url=options.vlm_url, vlm_model=options.vlm_model)
    try:
        yield from masks_of_rows(sampled, asked)
    except PerceptionError as error:
        raise BadEpisodeError(
            sampled.ref.name,
            f"no mask of the object: {error}; "
            "--missing-mask zeros exports without, --vlm-url asks a vision-language model",
        ) from None
