"""An episode of the simulated table, recorded without masks, and the true ones, from the judge's side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from dexrun.collecting.scenes import CollectOptions, Collector
from dexrun.gym.defaults import default_settings, lighter
from dexrun.gym.eyes import Eyes, Instant
from drivers.world.config import ObjectOptions
from drivers.world.scene import object_body
from runtime.recording.mcap_file import Batch, McapFile
from runtime.recording.source import RecordingFile

CUBE = ObjectOptions(shape="cube", color="red", size_m=(0.028, 0.028, 0.028), x_m=0.22, y_m=-0.06)
OTHER = ObjectOptions(shape="cylinder", color="blue", size_m=(0.026, 0.026, 0.03), x_m=0.25, y_m=0.06)


def demonstrated(folder: Path) -> tuple[Path, list[Any]]:
    """A recording without masks of taking the red cube, and the true mask of each of its frames."""
    settings = lighter(default_settings())
    world = settings.world.model_copy(update={"placed": (CUBE, OTHER)})
    options = CollectOptions(oversample=1, width=320, height=240, noise=0.0)
    collector = Collector(settings.model_copy(update={"world": world}), options)
    instants: dict[int, Instant] = {}
    expose = Eyes.expose

    def exposed(self: Eyes, stamp_ns: int) -> None:
        expose(self, stamp_ns)
        instants[stamp_ns] = self._instants[-1]

    made = folder / "made"
    made.mkdir(parents=True)
    with mock.patch.object(Eyes, "expose", exposed):
        found = collector.scene(4, 0, made)
    recordings = [made / f"episode_{each.index:06d}.mcap" for each in found if each.label == "success"]
    for recording in recordings:
        source = RecordingFile(recording)
        task, times = source.records["episode"]["task"], source.topics["/cameras/head/color"].times
        source.close()
        if task == "pick up the red cube":
            masks = list(_true(collector, [instants[int(each)] for each in times]))
            collector._engine.close()
            return _without_masks(recording, folder / "run/episodes/episode_000000.mcap"), masks
    raise AssertionError("the red cube was not taken")


def _true(collector: Collector, instants: list[Instant]) -> Iterator[Any]:
    """The pixels of the cube at each of these moments, drawn by its number instead of its colour."""
    import mujoco

    engine = collector._engine
    eyes = engine.eyes
    assert eyes is not None
    renderer, view = eyes._drawn_with("head", eyes.pictures["head"])
    wanted = engine.table.model.geom(object_body(0)).id
    flags = renderer._scene.flags
    flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 1
    for instant in instants:
        eyes._pose(instant)
        image = np.empty_like(view.image)
        renderer.draw(eyes._view, view, image)
        numbers = image.astype(np.int64) @ np.array([1, 256, 65536]) - 1
        scene = renderer._scene
        ours = [
            scene.geoms[i].segid
            for i in range(scene.ngeom)
            if (scene.geoms[i].objtype, scene.geoms[i].objid) == (int(mujoco.mjtObj.mjOBJ_GEOM), wanted)
        ]
        yield np.isin(numbers, ours).astype(np.uint8)


def _without_masks(source: Path, target: Path) -> Path:
    """The same recording, of a program that tracks nothing."""
    from dexrun.curation.mcap_files import _channels

    target.parent.mkdir(parents=True)
    file = RecordingFile(source)
    channels, _, _ = _channels(file)
    kept = [channel for channel in channels if not channel.topic.startswith(("/mask/", "/tip/"))]
    out, batch = McapFile(target, kept), Batch()
    for number, channel in enumerate(kept, 1):
        topic = file.topics[channel.topic]
        for place in range(len(topic.times)):
            sequence, publish_ns, data = file.message(topic, place)
            batch.add(number, sequence, int(topic.times[place]), publish_ns, [bytes(data)])
    out.write(batch)
    for name, values in file.records.items():
        out.write_metadata(name, values)
    out.finish()
    file.close()
    return target
