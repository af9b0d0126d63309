"""Pictures of the table: colour and depth of one camera out of one rendering pass, on EGL."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.world.camera_view import CameraView, Region, Still
from drivers.world.config import RenderOptions, WorldConfig
from drivers.world.depth_sensor import Buffer, DepthSensor
from runtime.body import COLLISION_GROUP
from runtime.messages import ColorImage, DepthImage

_UNSEEN_GROUP = 5
"""Of geoms: the visual group that is never shown."""


class RenderError(Exception):
    """No picture can be made on this machine. One line that says what is missing."""


def prepare_environment(options: RenderOptions) -> None:
    """Choose EGL and the rasteriser's threads. Must come before MuJoCo and Mesa are loaded."""
    os.environ["MUJOCO_GL"] = "egl"
    os.environ.setdefault("LP_NUM_THREADS", str(options.threads))


class Renderer:
    """Both cameras' pictures of one model. Belongs to the thread that makes it.

    What lies outside a picture is not drawn: a software rasteriser pays for every triangle, seen or not. Nor
    is what never moves drawn more than once for a camera that stands: what moves is laid over it, where it is
    nearer, pixel by pixel as the rasteriser does.

    Raises:
        RenderError: there is no EGL with OpenGL on this machine.
    """

    def __init__(self, model: Any, config: WorldConfig) -> None:
        import mujoco

        self._mujoco = mujoco
        self._model = model
        self._config = config
        self._context_egl = _egl_context(config)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, 400)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[COLLISION_GROUP] = self._option.geomgroup[_UNSEEN_GROUP] = 0
        flags = mujoco.mjtRndFlag
        self._scene.flags[flags.mjRND_SHADOW] = config.render.shadows
        for flag in (flags.mjRND_REFLECTION, flags.mjRND_SKYBOX, flags.mjRND_FOG, flags.mjRND_HAZE):
            self._scene.flags[flag] = 0
        self._groups = model.geom_group.copy()
        self._still = model.body_weldid[model.geom_bodyid] == 0
        self._layers = not config.render.shadows and not config.render.samples
        self._views = {
            "head": self.view("head", config.head.width, config.head.height, depth=True),
            "wrist": self.view("wrist", config.wrist.width, config.wrist.height),
        }

    def view(self, camera: str, width: int, height: int, *, depth: bool = False) -> CameraView:
        """`camera` in another size than the configured one, for `draw`; not larger than the larger one."""
        sensor = None
        if depth:
            extent = self._model.stat.extent
            near, far = (z * extent for z in (self._model.vis.map.znear, self._model.vis.map.zfar))
            options = self._config.head.model_copy(update={"width": width, "height": height})
            sensor = DepthSensor(options, near, far, self._config.seed)
        return CameraView(self._model, camera, width, height, sensor)

    def draw(self, data: Any, view: CameraView, color: ColorImage, depth: DepthImage | None = None) -> None:
        """Fill `color` ``[H, W, 3]``, and `depth` ``[H, W]`` of a view that has it, with what `view` sees."""
        self._context_egl.make_current()
        if self._layers and view.stands:
            self._draw_over(data, view, color, depth)
            return
        self._draw(data, view)
        buffer = view.buffer if depth is not None else None
        self._mujoco.mjr_readPixels(view.image, buffer, view.rect, self._context)
        color[...] = view.image[::-1]
        if view.depth is not None and buffer is not None and depth is not None:
            view.depth.read(buffer[::-1], depth)

    def _draw(
        self, data: Any, view: CameraView, chosen: NDArray[np.bool_] | None = None
    ) -> NDArray[np.bool_]:
        """Those of the geoms that are `chosen` (by default all); returns which may be in the picture."""
        shown = view.holds(data)
        shown &= True if chosen is None else chosen
        if not self._config.render.shadows:  # what is not seen casts one
            self._model.geom_group[:] = np.where(shown, self._groups, _UNSEEN_GROUP)
        everything = self._mujoco.mjtCatBit.mjCAT_ALL
        self._mujoco.mjv_updateScene(
            self._model, data, self._option, None, view.camera, everything, self._scene
        )
        self._model.geom_group[:] = self._groups
        self._mujoco.mjr_render(view.rect, self._scene, self._context)
        return shown

    def _draw_over(self, data: Any, view: CameraView, color: ColorImage, depth: DepthImage | None) -> None:
        """What does not move, and what does laid over it, where that is."""
        import cv2

        if view.still is None:
            view.still = self._draw_still(data, view)
        still, sensor = view.still, view.depth
        color[...] = still.color
        np.copyto(view.surface, still.surface)
        shown = self._draw(data, view, ~self._still) & (self._groups != COLLISION_GROUP)
        for region in view.regions(data, shown):
            image, buffer = self._read_part(view, region)
            behind = still.buffer[region.slices]
            cv2.copyTo(image, cv2.compare(buffer, behind, cv2.CMP_LE), color[region.slices])
            if sensor is not None and depth is not None:
                view.lay(region, sensor.surface(np.minimum(behind, buffer)))
        if sensor is not None and depth is not None:
            sensor.report(view.surface, depth)

    def _draw_still(self, data: Any, view: CameraView) -> Still:
        self._draw(data, view, self._still)
        image, buffer = self._read_part(view, view.whole)
        return Still(image, buffer, buffer if view.depth is None else view.depth.surface(buffer))

    def _read_part(self, view: CameraView, region: Region) -> tuple[ColorImage, Buffer]:
        """Colour and depth buffer of a part of what was drawn, rows from the top."""
        import cv2

        image, buffer = view.room(region)
        rect = self._mujoco.MjrRect(region.left, view.rect.height - region.bottom, *buffer.shape[::-1])
        self._mujoco.mjr_readPixels(image, buffer, rect, self._context)
        return np.asarray(cv2.flip(image, 0), np.uint8), np.asarray(cv2.flip(buffer, 0), np.float32)

    def owners(self, data: Any, view: CameraView) -> NDArray[np.int32]:
        """``[H, W]``: which of the model's geoms each pixel of `view` shows, -1 for none. Ground truth."""
        self._context_egl.make_current()
        flags, scene = self._mujoco.mjtRndFlag, self._scene
        told_apart = flags.mjRND_SEGMENT, flags.mjRND_IDCOLOR
        everything = self._mujoco.mjtCatBit.mjCAT_ALL
        self._mujoco.mjv_updateScene(self._model, data, self._option, None, view.camera, everything, scene)
        for flag in told_apart:
            scene.flags[flag] = 1
        try:
            self._mujoco.mjr_render(view.rect, scene, self._context)
        finally:
            for flag in told_apart:
                scene.flags[flag] = 0
        self._mujoco.mjr_readPixels(view.image, None, view.rect, self._context)
        numbers = view.image[::-1].astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)
        geom = self._mujoco.mjtObj.mjOBJ_GEOM
        ids = np.full(scene.ngeom + 2, -1, np.int32)
        for shown in scene.geoms[: scene.ngeom]:
            if shown.objtype == geom:
                ids[shown.segid + 1] = shown.objid
        owners: NDArray[np.int32] = ids[np.minimum(numbers, scene.ngeom + 1)]
        return owners

    def head(self, data: Any, color: ColorImage, depth: DepthImage) -> None:
        """Fill `color` ``[H, W, 3]`` and `depth` ``[H, W]`` with what the head camera sees."""
        self.draw(data, self._views["head"], color, depth)

    def wrist(self, data: Any) -> ColorImage:
        """What the wrist camera sees, as a new array ``[H, W, 3]``."""
        view = self._views["wrist"]
        color = np.empty_like(view.image)
        self.draw(data, view, color)
        return color

    def close(self) -> None:
        """Release the OpenGL context. Idempotent."""
        if self._context is not None:
            self._context.free()
            self._context_egl.free()
            self._context = None


def _egl_context(config: WorldConfig) -> Any:
    try:
        from mujoco.egl import GLContext

        context = GLContext(
            max(config.head.width, config.wrist.width), max(config.head.height, config.wrist.height)
        )
        context.make_current()
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise RenderError(
            f"no EGL rendering on this machine ({error}); install a driver: "
            "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri"
        ) from error
    return context
