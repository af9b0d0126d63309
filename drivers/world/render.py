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

_NOISE_TILE = 64
"""The noise pattern is this much larger than the picture, and shifted from frame to frame."""


class RenderError(Exception):
    """No picture can be made on this machine. One line that says what is missing."""


def prepare_environment(options: RenderOptions, *, stepped: bool) -> None:
    """Choose EGL and the rasteriser's threads. Must come before MuJoCo and Mesa are loaded."""
    os.environ["MUJOCO_GL"] = "egl"
    threads = options.threads if options.threads is not None else 2 * stepped
    os.environ.setdefault("LP_NUM_THREADS", str(threads))


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


class Renderer:
    """Both cameras' pictures of one model. Belongs to the thread that makes it.

    Raises:
        RenderError: there is no EGL with OpenGL on this machine.
    """

    def __init__(self, model: Any, config: WorldConfig) -> None:
        import mujoco

        self._mujoco = mujoco
        self._model = model
        self._context_egl = _egl_context(config)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, 400)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[COLLISION_GROUP] = 0
        flags = mujoco.mjtRndFlag
        self._scene.flags[flags.mjRND_SHADOW] = config.render.shadows
        for flag in (flags.mjRND_REFLECTION, flags.mjRND_SKYBOX, flags.mjRND_FOG, flags.mjRND_HAZE):
            self._scene.flags[flag] = 0
        head, wrist = config.head, config.wrist
        self._views = {
            "head": self._view("head", head.width, head.height),
            "wrist": self._view("wrist", wrist.width, wrist.height),
        }
        self._depth_buffer = np.empty((head.height, head.width), np.float32)
        extent = model.stat.extent
        near, far = model.vis.map.znear * extent, model.vis.map.zfar * extent
        self._depth = DepthSensor(head, near, far, config.seed)

    def _view(self, camera: str, width: int, height: int) -> tuple[Any, Any, ColorImage]:
        view = self._mujoco.MjvCamera()
        view.type = self._mujoco.mjtCamera.mjCAMERA_FIXED
        view.fixedcamid = self._model.camera(camera).id
        rect = self._mujoco.MjrRect(0, 0, width, height)
        return view, rect, np.empty((height, width, 3), np.uint8)

    def _draw(self, data: Any, camera: str) -> tuple[Any, ColorImage]:
        self._context_egl.make_current()
        view, rect, image = self._views[camera]
        everything = self._mujoco.mjtCatBit.mjCAT_ALL
        self._mujoco.mjv_updateScene(self._model, data, self._option, None, view, everything, self._scene)
        self._mujoco.mjr_render(rect, self._scene, self._context)
        return rect, image

    def head(self, data: Any, color: ColorImage, depth: DepthImage) -> None:
        """Fill `color` ``[H, W, 3]`` and `depth` ``[H, W]`` with what the head camera sees."""
        rect, image = self._draw(data, "head")
        self._mujoco.mjr_readPixels(image, self._depth_buffer, rect, self._context)
        color[...] = image[::-1]
        self._depth.read(self._depth_buffer[::-1], depth)

    def wrist(self, data: Any) -> ColorImage:
        """What the wrist camera sees, as a new array ``[H, W, 3]``."""
        rect, image = self._draw(data, "wrist")
        self._mujoco.mjr_readPixels(image, None, rect, self._context)
        return np.ascontiguousarray(image[::-1])

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
