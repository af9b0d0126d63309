"""One picture of a camera of the configuration, now: of the real one, or of the simulated table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dexrun.config.settings import Settings
from dexrun.perceiving.errors import InputError
from dexrun.perceiving.view import PerceivedView, configured_camera, lacking_of
from runtime.clock import NS_PER_S, RealClock
from runtime.messages import CameraInfo, DeviceError, Frame
from runtime.observer import frame_of
from runtime.part_context import DeviceContext

if TYPE_CHECKING:
    from dexrun.gym.eyes import Shot

_WAIT_S = 5.0
_SETTLE = 10
"""Pictures that an automatic exposure takes."""


def taken_now(settings: Settings, name: str) -> PerceivedView:
    """A picture of camera `name`.

    Raises:
        InputError: there is no such camera, or it gives nothing.
    """
    from dexrun.gym.engine import configured_pictures

    known = configured_camera(settings, name)
    shot = configured_pictures(settings).get(name)
    try:
        frame, info = _photographed(settings, name) if shot is None else _drawn(settings, name, shot)
    except DeviceError as error:
        raise InputError(str(error)) from None
    if info.base_from_camera is None:
        info = replace(info, base_from_camera=known.base_from_camera)
    title = f"camera {name}, now" if shot is None else f"camera {name} of the simulated table"
    lacking = lacking_of(info, frame.depth, "the camera gives none", "the camera does not say them")
    return PerceivedView(title, frame.color, frame.depth, info, lacking)


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


def _drawn(settings: Settings, name: str, shot: Shot) -> tuple[Frame, CameraInfo]:
    from dexrun.gym.engine import TableEngine

    engine = TableEngine(settings, {name: shot})
    try:
        engine.load(settings.world)
        assert engine.eyes is not None  # noqa: S101 - a scene is loaded
        return engine.eyes.frame(name), engine.infos[name]
    finally:
        engine.close()
