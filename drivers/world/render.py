"""Pictures of the table: colour and depth of one camera out of one rendering pass, on EGL."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.world.config import HeadCameraOptions, RenderOptions, WorldConfig
from runtime.body import COLLISION_GROUP
from runtime.messages import CameraInfo, ColorImage, DepthImage, Floats, Intrinsics

_UNSEEN_GROUP = 5
"""Of geoms: the visual group that is never shown."""
_NOISE_TILE = 64
"""The noise pattern is this much larger than the picture, and shifted from frame to frame."""


class RenderError(Exception):
    """No picture can be made on this machine. One line that says what is missing."""


def prepare_environment(options: RenderOptions) -> None:
    """Choose EGL and the rasteriser's threads. Must come before MuJoCo and Mesa are loaded."""
    os.environ["MUJOCO_GL"] = "egl"
    os.environ.setdefault("LP_NUM_THREADS", str(options.threads))


def pinhole(width: int, height: int, fovy_deg: float) -> Intrinsics:
    """Of a camera with square pixels; pixel centres are at whole numbers."""
    focal = height / 2 / math.tan(math.radians(fovy_deg) / 2)
    return Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def camera_infos(config: WorldConfig, base_from_head: Floats) -> dict[str, CameraInfo]:
    """What is constant about both cameras."""
    head, wrist = config.head, config.wrist
    return {
        "head": CameraInfo(
            "head",
            pinhole(head.width, head.height, head.fovy_deg),
            depth_scale_m=head.depth_scale_m,
            base_from_camera=base_from_head,
        ),
        "wrist": CameraInfo("wrist", pinhole(wrist.width, wrist.height, wrist.fovy_deg)),
    }


class DepthSensor:
    """Turns a depth buffer into what a depth camera would report: device units, noise, holes."""

    def __init__(self, options: HeadCameraOptions, near_m: float, far_m: float, seed: int) -> None:
        self._options = options
        self._near, self._far = near_m, far_m
        shape = (options.height + _NOISE_TILE, options.width + _NOISE_TILE)
        noise = np.random.default_rng([seed, 2]).standard_normal(shape).astype(np.float32)
        self._noise = noise * np.float32(options.depth_noise_m / 0.6**2)
        focal = pinhole(options.width, options.height, options.fovy_deg).fy
        self._slope = np.float32(math.tan(math.radians(min(89.9, options.grazing_deg))) / focal)
        self._frames = 0
        self._metres = np.empty((options.height, options.width), np.float32)
        self._holes = np.empty(self._metres.shape, bool)
        self._steps = np.empty(self._metres.shape, np.float32)

    def read(self, buffer: NDArray[np.float32], out: DepthImage) -> None:
        """Fill `out` from the depth buffer `buffer` (0 near to 1 far, rows from the top)."""
        near, far = self._near, self._far
        metres, holes = self._metres, self._holes
        np.multiply(buffer, np.float32(-(far - near)), out=metres)
        metres += np.float32(far)
        np.divide(np.float32(near * far), metres, out=metres)
        np.greater(metres, np.float32(self._options.max_depth_m), out=holes)
        self._grazing(metres, holes)
        self._add_noise(metres)
        np.multiply(metres, np.float32(1 / self._options.depth_scale_m), out=metres)
        metres += np.float32(0.5)
        np.minimum(metres, np.float32(65535), out=metres)
        np.copyto(out, metres, casting="unsafe")
        out[holes] = 0
        self._frames += 1

    def _grazing(self, metres: NDArray[np.float32], holes: NDArray[np.bool_]) -> None:
        """Neighbouring pixels too far apart in depth: the surface is seen edge-on, or ends here."""
        steps = self._steps
        np.subtract(metres[:, 1:], metres[:, :-1], out=steps[:, 1:])
        np.abs(steps, out=steps)
        limit = metres * self._slope
        holes[:, 1:] |= steps[:, 1:] > limit[:, 1:]
        np.subtract(metres[1:], metres[:-1], out=steps[1:])
        np.abs(steps, out=steps)
        holes[1:] |= steps[1:] > limit[1:]

    def _add_noise(self, metres: NDArray[np.float32]) -> None:
        if self._options.depth_noise_m == 0:
            return
        down, right = (self._frames * 29) % _NOISE_TILE, (self._frames * 43) % _NOISE_TILE
        height, width = metres.shape
        np.multiply(metres, metres, out=self._steps)
        self._steps *= self._noise[down : down + height, right : right + width]
        metres += self._steps


class CameraView:
    """One camera at one size: where it is drawn, and what its depth sensor makes of it.

    Attributes:
        image, buffer: of the newest picture, rows from the bottom: colour ``[H, W, 3]``, and the depth buffer
            ``[H, W]`` of a view that needs it. stands: whether the camera never moves.
        behind: both, of all that never moves, as a camera sees it that stands; once they were drawn.
    """

    def __init__(self, model: Any, camera: str, width: int, height: int, depth: DepthSensor | None) -> None:
        import mujoco

        self.camera = mujoco.MjvCamera()
        self.camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self.camera.fixedcamid = self.id = model.camera(camera).id
        self.rect = mujoco.MjrRect(0, 0, width, height)
        self.image: ColorImage = np.empty((height, width, 3), np.uint8)
        self.depth = depth
        self.stands = bool(model.body_weldid[model.cam_bodyid[self.id]] == 0)
        self.buffer = np.empty((height, width), np.float32) if depth is not None or self.stands else None
        self.behind: tuple[ColorImage, NDArray[np.float32]] | None = None
        up = math.radians(float(model.cam_fovy[self.id])) / 2
        across = math.atan(math.tan(up) * width / height)
        sides = [(sign * math.cos(across), 0.0, -math.sin(across)) for sign in (-1, 1)]
        sides += [(0.0, sign * math.cos(up), -math.sin(up)) for sign in (-1, 1)]
        self._inward = np.array([(0.0, 0.0, -1.0), *sides])
        self._center, self._half = np.split(model.geom_aabb[:, None], 2, axis=2)
        self._endless = model.geom_rbound <= 0

    def holds(self, data: Any) -> NDArray[np.bool_]:
        """Which geoms may be in the picture: the box around each against the picture's four sides."""
        inward = self._inward @ data.cam_xmat[self.id].reshape(3, 3).T
        axes = inward @ data.geom_xmat.reshape(-1, 3, 3)
        reach = (axes * self._center + np.abs(axes) * self._half).sum(axis=2)
        within = (data.geom_xpos - data.cam_xpos[self.id]) @ inward.T + reach >= 0
        return np.asarray(within.all(axis=1) | self._endless)


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
            self._draw_over(data, view)
        else:
            self._draw(data, view, None, view.buffer if depth is not None else None)
        color[...] = view.image[::-1]
        if view.depth is not None and view.buffer is not None and depth is not None:
            view.depth.read(view.buffer[::-1], depth)

    def _draw(
        self,
        data: Any,
        view: CameraView,
        chosen: NDArray[np.bool_] | None,
        buffer: NDArray[np.float32] | None,
    ) -> None:
        """Those of the geoms that are `chosen` (by default all) into the view's image, and into `buffer`."""
        if not self._config.render.shadows:  # what is not seen casts one
            shown = view.holds(data)
            shown &= True if chosen is None else chosen
            self._model.geom_group[:] = np.where(shown, self._groups, _UNSEEN_GROUP)
        everything = self._mujoco.mjtCatBit.mjCAT_ALL
        self._mujoco.mjv_updateScene(
            self._model, data, self._option, None, view.camera, everything, self._scene
        )
        self._model.geom_group[:] = self._groups
        self._mujoco.mjr_render(view.rect, self._scene, self._context)
        self._mujoco.mjr_readPixels(view.image, buffer, view.rect, self._context)

    def _draw_over(self, data: Any, view: CameraView) -> None:
        """What moves, over what does not."""
        import cv2

        assert view.buffer is not None  # noqa: S101 - of a camera that stands there is one
        if view.behind is None:
            self._draw(data, view, self._still, view.buffer)
            view.behind = view.image.copy(), view.buffer.copy()
        self._draw(data, view, ~self._still, view.buffer)
        image, buffer = view.behind
        cv2.copyTo(image, cv2.compare(buffer, view.buffer, cv2.CMP_LT), view.image)
        np.minimum(buffer, view.buffer, out=view.buffer)

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


def base_from_camera(data: Any, camera: str) -> Floats:
    """4x4 from the camera's optical frame (x right, y down, z forward) to the base frame."""
    view = data.camera(camera)
    pose = np.eye(4)
    pose[:3, :3] = view.xmat.reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])
    pose[:3, 3] = view.xpos
    return pose
