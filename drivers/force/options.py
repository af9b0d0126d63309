"""What can be set about a serial force sensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, StringConstraints, model_validator

from runtime.parts import ForceTable
from runtime.patience import check_patience, patience_s

_SILENCE_S = 0.25
_ZERO_S = 10.0
"""A zero may take so long at least: a sensor slower than its `rate_hz` is told of, and works."""

Header = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{4}$")]


class SerialForceOptions(ForceTable):
    """A sensor that streams its channels over a serial port by itself.

    Attributes:
        port: path of the serial port.
        serial_number: USB serial number of the adapter; preferred to `port`, and learnt from it otherwise.
        baudrate: of the line, in bit/s.
        format: ``text``: a line of `K` decimal numbers; ``frames``: binary frames (see ``wire.py``).
        separator: between the numbers of a line; blanks around numbers never matter.
        value: how a frame holds a number, little endian.
        header: the two bytes, in hex, that a frame starts with.
        checksum: what a frame ends with.
        newtons_per_count: scale of the sensor's numbers.
        calibration: ``K x K``, applied after the scale: force = calibration @ (counts * scale); identity if
            empty.
        full_scale_counts: a channel at or beyond this is saturated; 0 if the sensor does not say.
        tare_at_start: take the first samples' mean as zero; nothing is published before.
        tare_samples: how many samples a zero is the mean of.
        tare_max_drift_n: a later zero, such as at an episode's beginning, may be this far from the first one
            (or from 0 without `tare_at_start`), and the first from its own earliest samples, by channel;
            beyond that a force acts, and does not become the zero.
        silence_s: without a sample for this long, the sensor has failed; by default 0.25, or the time of
            two and a half samples where that is longer.
        open_timeout_s: how long the first sample after opening may take. Many boards restart when their port
            is opened, and are mute while their boot loader waits.
    """

    driver: Literal["serial"] = "serial"
    port: str = ""
    serial_number: str = ""
    baudrate: int = Field(default=115_200, gt=0)
    format: Literal["text", "frames"] = "text"
    separator: str = Field(default=",", min_length=1, max_length=4)
    value: Literal["int16", "float32"] = "int16"
    header: Header = "aa55"
    checksum: Literal["crc16", "sum8"] = "crc16"
    newtons_per_count: float = Field(default=0.01, gt=0)
    calibration: tuple[tuple[float, ...], ...] = ()
    full_scale_counts: float = Field(default=0.0, ge=0)
    tare_at_start: bool = True
    tare_samples: int = Field(default=50, ge=1)
    tare_max_drift_n: float = Field(default=3.0, ge=0)
    silence_s: float | None = Field(default=None, gt=0)
    open_timeout_s: float = Field(default=6.0, gt=0)

    @model_validator(mode="after")
    def _is_whole(self) -> SerialForceOptions:
        if not self.port and not self.serial_number:
            raise ValueError("give port (a path) or serial_number (of the USB adapter)")
        k = self.channels
        if self.calibration and [len(row) for row in self.calibration] != [k] * k:
            raise ValueError(f"calibration must be {k} rows of {k} numbers (channels = {k})")
        if self.calibration and np.linalg.matrix_rank(np.array(self.calibration)) < k:
            raise ValueError("calibration is singular: some force would not be felt")
        if any(c in "0123456789.+-eE\r\n" for c in self.separator):
            raise ValueError(f"separator {self.separator!r} may not be part of a number or a line's end")
        check_patience("silence_s", self.silence_s, "rate_hz", self.rate_hz)
        return self

    @property
    def longest_silence_s(self) -> float:
        """`silence_s`, or what stands for it."""
        return patience_s(self.silence_s, self.rate_hz, _SILENCE_S)

    def longest_start_s(self) -> float:
        zero_s = self.tare_samples / self.rate_hz if self.tare_at_start else 0.0
        return self.open_timeout_s + (max(2 * zero_s, _ZERO_S) if self.tare_at_start else 0.0)

    def addresses(self) -> Mapping[str, str]:
        given = {"serial_number": self.serial_number, "port": self.port}
        return {key: value for key, value in given.items() if value}
