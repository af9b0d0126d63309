"""Finding a RealSense, choosing its streams, setting it up, pairing its frames."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drivers.realsense.options import RealSenseOptions
from runtime.messages import DeviceError, FaultKind, Intrinsics

_MODELS = {
    "none": "brown_conrady",
    "brown_conrady": "brown_conrady",
    "modified_brown_conrady": "inverse_brown_conrady",
    "inverse_brown_conrady": "inverse_brown_conrady",
}


@dataclass
class Streams:
    """The two streams of one device and the sensors they come from (one sensor on a D405)."""

    device: Any
    color: Any
    depth: Any
    depth_sensor: Any
    color_sensor: Any
    started: list[Any] = field(default_factory=list)

    def start(self, queue: Any) -> None:
        """Begin streaming both into `queue`."""
        groups: list[tuple[Any, list[Any]]] = [(self.depth_sensor, [self.depth])]
        if self.color_sensor is self.depth_sensor:
            groups[0][1].append(self.color)
        else:
            groups.append((self.color_sensor, [self.color]))
        for sensor, profiles in groups:
            sensor.open(profiles)
            self.started.append(sensor)
        for sensor, _ in groups:
            sensor.start(queue)

    def stop(self) -> None:
        """End streaming, whatever state the device is in. Never raises."""
        for sensor in self.started:
            for call in (sensor.stop, sensor.close):
                with contextlib.suppress(RuntimeError):
                    call()
        self.started.clear()

    def aligned(self) -> bool:
        """Whether depth is the colour camera's view already (a D405's two streams come from one lens)."""
        color, depth = self.color.get_intrinsics(), self.depth.get_intrinsics()
        same = all(
            getattr(color, key) == getattr(depth, key)
            for key in ("width", "height", "fx", "fy", "ppx", "ppy", "coeffs")
        )
        extrinsics = self.depth.get_extrinsics_to(self.color)
        return same and extrinsics.rotation == [1, 0, 0, 0, 1, 0, 0, 0, 1] and not any(extrinsics.translation)

    def scale_m(self) -> float:
        """Metres per depth unit, as the device says (single precision, shortest decimal form)."""
        return float(str(np.float32(self.depth_sensor.as_depth_sensor().get_depth_scale())))

    def port(self, rs: Any) -> str:
        """The device's physical port, or ``""``."""
        key = rs.camera_info.physical_port
        return str(self.device.get_info(key)) if self.device.supports(key) else ""


def find(rs: Any, context: Any, name: str, config: RealSenseOptions) -> Any:
    """The device with the configured serial number.

    Raises:
        DeviceError: ``not_found``, with the serial numbers that are there.
    """
    there = []
    for device in context.query_devices():
        with contextlib.suppress(RuntimeError):  # a device may go away while it is asked
            if device.supports(rs.camera_info.serial_number):
                serial = device.get_info(rs.camera_info.serial_number)
                if serial == config.serial:
                    return device
                there.append(serial)
    listed = f"there are: {', '.join(sorted(there))}" if there else "no RealSense is connected"
    raise DeviceError(
        name, FaultKind.NOT_FOUND, config.serial, f"no camera with this serial number; {listed}"
    )


def choose(rs: Any, device: Any, name: str, config: RealSenseOptions) -> Streams:
    """The colour and depth streams that were configured.

    Raises:
        DeviceError: ``no_stream``, with the sizes and rates that the device offers.
    """
    color_size = (config.width, config.height)
    depth_size = (config.depth_width or config.width, config.depth_height or config.height)
    wanted = getattr(rs.format, config.color_format)
    sensors = list(device.query_sensors())  # asked twice, one sensor would be two objects
    color_sensor, color = _stream(sensors, rs.stream.color, wanted, color_size, name, config)
    depth_sensor, depth = _stream(sensors, rs.stream.depth, rs.format.z16, depth_size, name, config)
    return Streams(device, color, depth, depth_sensor, color_sensor)


def _profiles(sensors: Sequence[Any], kind: Any) -> list[tuple[Any, Any]]:
    return [
        (sensor, profile.as_video_stream_profile())
        for sensor in sensors
        for profile in sensor.get_stream_profiles()
        if profile.stream_type() == kind
    ]


def _stream(
    sensors: Sequence[Any], kind: Any, fmt: Any, size: tuple[int, int], name: str, config: RealSenseOptions
) -> tuple[Any, Any]:
    for sensor, profile in _profiles(sensors, kind):
        fits = (profile.width(), profile.height()) == size and profile.format() == fmt
        if fits and profile.fps() == config.fps:
            return sensor, profile
    asked = f"no {kind.name} stream {size[0]}x{size[1]} {fmt.name} at {config.fps} fps"
    raise DeviceError(
        name, FaultKind.NO_STREAM, config.serial, f"{asked}; there are: {_offered(sensors, kind)}"
    )


def _offered(sensors: Sequence[Any], kind: Any) -> str:
    offers = {(p.width(), p.height(), p.format().name, p.fps()) for _, p in _profiles(sensors, kind)}
    return ", ".join(f"{w}x{h} {f} at {r}" for w, h, f, r in sorted(offers)) or "none"


def intrinsics_of(profile: Any, name: str, serial: str) -> Intrinsics:
    """The stream's calibration.

    Raises:
        DeviceError: ``bad_calibration``, a lens model that deprojection does not know.
    """
    pinhole = profile.get_intrinsics()
    coefficients = tuple(float(c) for c in pinhole.coeffs)
    model = _MODELS.get(pinhole.model.name)
    if model is None and any(coefficients):
        detail = f"distortion model {pinhole.model.name}; accepted are {', '.join(sorted(_MODELS))}"
        raise DeviceError(name, FaultKind.BAD_CALIBRATION, serial, detail)
    return Intrinsics(
        pinhole.width,
        pinhole.height,
        pinhole.fx,
        pinhole.fy,
        pinhole.ppx,
        pinhole.ppy,
        coefficients,  # type: ignore[arg-type]
        model or "brown_conrady",
    )


def set_up(rs: Any, streams: Streams, name: str, config: RealSenseOptions) -> None:
    """Set the configured options; what is not configured stays as the device has it.

    Raises:
        DeviceError: ``bad_option``, the device does not know the option or the value.
    """
    depth, color, option = streams.depth_sensor, streams.color_sensor, rs.option
    both = list({id(s): s for s in (depth, color)}.values())
    able = [sensor for sensor in both if sensor.supports(option.global_time_enabled)]
    for sensor in able:  # on both or on neither: stamps of one clock can be compared
        sensor.set_option(option.global_time_enabled, float(len(able) == len(both)))
    automatic = None if config.exposure_us is None and config.gain is None else 0.0
    wanted = (
        (depth, option.depth_units, config.depth_units_m),
        (depth, option.emitter_enabled, None if config.emitter is None else float(config.emitter)),
        (depth, option.laser_power, config.laser_power_mw),
        (depth, option.enable_auto_exposure, automatic),
        (depth, option.exposure, config.exposure_us),
        (depth, option.gain, config.gain),
        (color, option.enable_auto_exposure, None if config.color_exposure_us is None else 0.0),
        # The colour camera counts in 100 microseconds (UVC's unit), except where it is the depth camera.
        (color, option.exposure, _color_exposure(streams, config)),
    )
    for sensor, key, value in wanted:
        if value is not None:
            _set(sensor, key, value, name, config.serial)


def _color_exposure(streams: Streams, config: RealSenseOptions) -> float | None:
    if config.color_exposure_us is None:
        return None
    shared = streams.color_sensor is streams.depth_sensor
    return config.color_exposure_us if shared else round(config.color_exposure_us / 100.0)


def _set(sensor: Any, key: Any, value: float, name: str, serial: str) -> None:
    if not sensor.supports(key):
        raise DeviceError(name, FaultKind.BAD_OPTION, serial, f"this camera has no option {key.name}")
    if abs(sensor.get_option(key) - value) <= 1e-6 * abs(value):
        return
    span = sensor.get_option_range(key)
    if sensor.is_option_read_only(key):
        raise DeviceError(
            name, FaultKind.BAD_OPTION, serial, f"{key.name} is {sensor.get_option(key):g} and fixed"
        )
    if not span.min <= value <= span.max:
        detail = f"{key.name} {value:g} is outside {span.min:g}..{span.max:g}"
        raise DeviceError(name, FaultKind.BAD_OPTION, serial, detail)
    sensor.set_option(key, value)


class Pairing:
    """Puts colour and depth of one instant together; what stays alone is counted and dropped.

    librealsense's own syncer decides by wall time whether a stream is late, and then hands out half
    pairs; two runs of one input would differ. Here a pair is two frames stamped at most `gap_ms` apart by
    one clock: where only one stream has metadata, the other is stamped on arrival, and the two say nothing
    of each other.
    """

    def __init__(self, depth_kind: Any, gap_ms: float) -> None:
        self._depth_kind = depth_kind
        self._gap_ms = gap_ms
        self._halves: dict[bool, Any] = {}
        self._came = {False: 0, True: 0}
        self._clocks: tuple[str, str] | None = None
        self.dropped = 0

    @property
    def half(self) -> bool:
        """Whether one frame waits for its partner."""
        return bool(self._halves)

    def add(self, frame: Any) -> tuple[Any, Any] | None:
        """Take a frame; ``(color, depth)`` once both are there."""
        is_depth = frame.get_profile().stream_type() == self._depth_kind
        self._came[is_depth] += 1
        if self._halves.pop(is_depth, None) is not None:
            self.dropped += 1
        self._halves[is_depth] = frame
        if len(self._halves) < 2:
            return None
        color, depth = self._halves[False], self._halves[True]
        clocks = (_clock_of(color), _clock_of(depth))
        if clocks[0] != clocks[1]:
            self._clocks = clocks
            del self._halves[not is_depth]
            self.dropped += 1
            return None
        gap = color.get_timestamp() - depth.get_timestamp()
        if abs(gap) <= self._gap_ms:
            self._halves.clear()
            self._came, self._clocks = {False: 0, True: 0}, None
            return color, depth
        del self._halves[gap > 0]  # the older one; its partner did not come
        self.dropped += 1
        return None

    def trouble(self) -> str:
        """Why there was no pair since the last one."""
        color, depth = self._came[False], self._came[True]
        if not color and not depth:
            return "no picture came"
        if self._clocks is not None:
            return (
                f"colour is stamped by the clock {self._clocks[0]} and depth by {self._clocks[1]}, which "
                "cannot be compared; the system needs librealsense's kernel modules, so that both have "
                "metadata"
            )
        if not color or not depth:
            came, missing = ("colour", "depth") if color else ("depth", "colour")
            return f"{came} came ({max(color, depth)} pictures), and no {missing}"
        return (
            f"colour ({color} pictures) and depth ({depth}) came, and no two within {self._gap_ms:g} ms of "
            "each other (pair_gap_s)"
        )


def _clock_of(frame: Any) -> str:
    return str(frame.get_frame_timestamp_domain().name)
