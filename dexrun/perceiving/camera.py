"""One picture of a camera of the configuration, now: of the real one, or of the simulated table."""

from __future__ import annotations

from dexrun.config.settings import Settings
from dexrun.perceiving.errors import InputError
from dexrun.perceiving.view import PerceivedView, configured_camera
from runtime.clock import NS_PER_S, RealClock
from runtime.messages import CameraInfo, DeviceError, Frame
from runtime.observer import frame_of
from runtime.part_context import DeviceContext

_WAIT_S = 5.0
_SETTLE = 10
"""Pictures that an automatic exposure takes."""
_WORLD = "world:"


def taken_now(settings: Settings, name: str) -> PerceivedView:
    """A picture of camera `name`.

    Raises:
        InputError: there is no such camera, or it gives nothing.
    """
    known = configured_camera(settings, name)
    simulated = str(settings.cameras[name].address).startswith(_WORLD)
    try:
        frame, info = _drawn(settings, name) if simulated else _photographed(settings, name)
    except DeviceError as error:
        raise InputError(str(error)) from None
    if info.base_from_camera is None:
        info = CameraInfo(info.name, info.intrinsics, info.depth_scale_m, known.base_from_camera)
    lacking = [] if frame.depth is not None else [f"camera {name!r} has no depth: no point in space"]
    if info.base_from_camera is None:
        lacking.append(f"camera {name!r} is not calibrated to the arm ([cameras.{name}.extrinsics])")
    title = f"camera {name} of the simulated table" if simulated else f"camera {name}, now"
    return PerceivedView(title, frame.color, frame.depth, info, tuple(lacking))


def _photographed(settings: Settings, name: str) -> tuple[Frame, CameraInfo]:
    clock = RealClock()
    driver = settings.cameras[name].build(DeviceContext(name, clock))
    driver.open()
    try:
        until_ns = clock.now_ns() + round(_WAIT_S * NS_PER_S)
        while driver.frames.published < _SETTLE and clock.now_ns() < until_ns:
            driver.poll()
        sample = driver.frames.newest()
        if sample is None:
            raise InputError(f"camera {name}: no picture within {_WAIT_S:g} s")
        return frame_of(name, sample, driver.frames), driver.info
    finally:
        driver.close()


def _drawn(settings: Settings, name: str) -> tuple[Frame, CameraInfo]:
    from dexrun.gym.engine import TableEngine
    from dexrun.gym.eyes import Shot

    camera = settings.cameras[name]
    at_hand = "wrist" in str(camera.address)
    shot = Shot("wrist" if at_hand else "head", camera.width, camera.height, depth=camera.depth)
    engine = TableEngine(settings, {name: shot})
    try:
        engine.load(settings.world)
        assert engine.eyes is not None  # noqa: S101 - a scene is loaded
        return engine.eyes.frame(name), engine.infos[name]
    finally:
        engine.close()
