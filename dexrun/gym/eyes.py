"""The cameras of a simulation in one process: a picture is drawn only when somebody looks at it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from drivers.world.config import WorldConfig
from drivers.world.look import look_of
from drivers.world.physics import Tabletop
from drivers.world.render import Renderer, base_from_camera, pinhole
from drivers.world.scene import calibrated_pose
from runtime.messages import CameraInfo, ColorImage, DepthImage, Floats, Frame

KEPT_S = 5.0
"""How long ago a picture may have been taken that is still asked for."""


@dataclass(frozen=True, slots=True)
class Shot:
    """What a camera delivers.

    Attributes:
        measured: what is said of where it is is true; else, as its calibration has it (``[world.look]``).
        wire: which of the table's cameras: ``head`` or ``wrist``.
    """

    wire: Literal["head", "wrist"]
    width: int
    height: int
    depth: bool = False
    measured: bool = False


@dataclass(frozen=True, slots=True)
class Instant:
    """Where everything was at `stamp_ns`: the table's ``qpos``."""

    stamp_ns: int
    qpos: Floats


class Eyes:
    """All cameras of one table. Belongs to the thread that makes it.

    Args:
        pictures: by the camera's name.

    Attributes:
        infos: what is said of each camera. true_infos: what is so; for the ground truth alone.

    Raises:
        drivers.world.render.RenderError: no picture can be made on this machine.
        ValueError: a picture is larger than what is drawn into.
    """

    def __init__(self, table: Tabletop, config: WorldConfig, pictures: Mapping[str, Shot]) -> None:
        import mujoco

        self.pictures = dict(pictures)
        self._mujoco = mujoco
        self._table = table
        self._config = config
        self._view = mujoco.MjData(table.model)
        self._renderer: Renderer | None = None
        self._views: dict[str, Any] = {}
        self._instants: deque[Instant] = deque(maxlen=round(KEPT_S * 100))
        self._drawn: dict[str, Frame] = {}
        self._pose(Instant(0, table.data.qpos.copy()))
        self._head = base_from_camera(self._view, "head")
        told = calibrated_pose(config.head) if look_of(config).moved else self._head
        self.infos = {
            name: self._info(name, picture, self._head if picture.measured else told)
            for name, picture in self.pictures.items()
        }
        self.true_infos = {
            name: self._info(name, picture, self._head) for name, picture in self.pictures.items()
        }

    def _info(self, name: str, picture: Shot, head: Floats) -> CameraInfo:
        options = self._config.head if picture.wire == "head" else self._config.wrist
        lens = pinhole(picture.width, picture.height, options.fovy_deg)
        if picture.wire == "wrist":
            return CameraInfo(name, lens)
        return CameraInfo(name, lens, self._config.head.depth_scale_m if picture.depth else None, head)

    def expose(self, stamp_ns: int) -> None:
        """The cameras take a picture now: it can be asked for until `KEPT_S` later."""
        self._instants.append(Instant(stamp_ns, self._table.data.qpos.copy()))

    def forget(self) -> None:
        """What was seen so far is of another scene."""
        self._instants.clear()
        self._drawn.clear()

    @property
    def stamp_ns(self) -> int:
        """Of the newest picture."""
        return self._instants[-1].stamp_ns

    def frame(self, name: str, before_ns: int | None = None) -> Frame:
        """The newest picture of camera `name`, or the newest that was taken no later than `before_ns`.

        Raises:
            LookupError: no picture was taken yet.
        """
        instant = self._instant(before_ns)
        known = self._drawn.get(name)
        if known is not None and known.stamp_ns == instant.stamp_ns:
            return known
        frame = self._draw(name, instant)
        if before_ns is None:
            self._drawn[name] = frame
        return frame

    def _instant(self, before_ns: int | None) -> Instant:
        if not self._instants:
            raise LookupError("no picture was taken yet")
        if before_ns is None:
            return self._instants[-1]
        for instant in reversed(self._instants):
            if instant.stamp_ns <= before_ns:
                return instant
        return self._instants[0]

    def _pose(self, instant: Instant) -> None:
        self._view.qpos[:] = instant.qpos
        self._mujoco.mj_kinematics(self._table.model, self._view)
        self._mujoco.mj_camlight(self._table.model, self._view)

    def _draw(self, name: str, instant: Instant) -> Frame:
        picture = self.pictures[name]
        renderer, view = self._drawn_with(name, picture)
        self._pose(instant)
        shape = picture.height, picture.width
        color: ColorImage = np.empty((*shape, 3), np.uint8)
        depth: DepthImage | None = np.empty(shape, np.uint16) if picture.depth else None
        renderer.draw(self._view, view, color, depth)
        return Frame(name, instant.stamp_ns, color, depth)

    def _drawn_with(self, name: str, picture: Shot) -> tuple[Renderer, Any]:
        if self._renderer is None:
            self._renderer = Renderer(self._table.model, self._config)
        if name not in self._views:
            self._views[name] = self._renderer.view(
                picture.wire, picture.width, picture.height, depth=picture.depth
            )
        return self._renderer, self._views[name]

    def close(self) -> None:
        """Release graphics. Idempotent."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer, self._views = None, {}


class LazyPictures(Mapping[str, Frame]):
    """By camera, frames that are made when they are asked for; each once."""

    def __init__(self, names: tuple[str, ...], look: Callable[[str], Frame]) -> None:
        self._names = names
        self._look = look
        self._seen: dict[str, Frame] = {}

    def __getitem__(self, name: str) -> Frame:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._seen:
            self._seen[name] = self._look(name)
        return self._seen[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
