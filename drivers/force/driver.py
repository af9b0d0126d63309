"""A serial force sensor, as the runtime sees it: newtons with the time at which they acted."""

from __future__ import annotations

import contextlib
import os
import select
import termios
from collections.abc import Callable, Mapping

import numpy as np
import serial

from drivers.force.options import SerialForceOptions
from drivers.force.stamps import Dejitter
from drivers.force.wire import Parser, parser_for
from drivers.serial_port import Adapter, Lister, adapter_at, find_ports, list_ports, naming_loss, open_port
from runtime.clock import NS_PER_S, Clock
from runtime.messages import DeviceError, FaultKind, Floats
from runtime.ring import Ring, capacity_for

POLL_NS = 100_000_000
_STILL_S = 5.0
"""So long may this process stand still: what waited in the line meanwhile comes at once, to be recorded."""
_FEW = 10
"""Samples after which a silence is no matter of the rate."""
ARRIVAL_S = 1.0
"""How long bytes that are known to have been sent are waited for: those lost with a plug never come."""


def always() -> bool:
    """Nothing moves."""
    return True


class SerialForce:
    """`runtime.interfaces.ForceDriver` for a sensor that streams over a serial port.

    Args:
        name: in the configuration, and of the incoming wire.
        lister: where to look ports up; for tests.

    Attributes:
        samples: fields ``force``, float64 ``[K]`` newtons after the tare, and ``saturated``, uint8 ``[K]``.
        tared: by zeros that were asked for so far, why each was refused; empty if it was taken.
    """

    def __init__(
        self, name: str, config: SerialForceOptions, clock: Clock, lister: Lister = list_ports
    ) -> None:
        self.name = name
        self._config = config
        self._clock = clock
        self._lister = lister
        self._wire = clock.wire(name, stream=True)
        k = config.channels
        self.samples = Ring(
            {"force": ((k,), "<f8"), "saturated": ((k,), "|u1")}, capacity_for(config.rate_hz, _STILL_S)
        )
        matrix = np.array(config.calibration) if config.calibration else np.eye(k)
        self._matrix: Floats = matrix * config.newtons_per_count
        self._zero: Floats = np.zeros(k)
        self._first_zero = self._zero
        self._still: Callable[[], bool] = always
        self.tared: tuple[str, ...] = ()
        self._zeroed = not config.tare_at_start
        self._tare_wanted = config.tare_at_start
        self._tare: list[Floats] = []
        self._saturated = False
        self._counts: dict[str, int] = {}
        self._adapter = Adapter(config.serial_number)
        self._line: serial.Serial | None = None
        self._where = config.port
        self._parser: Parser = parser_for(config)
        self._bad = 0
        self._stamps = Dejitter(round(NS_PER_S / config.rate_hz))
        self._last_good_ns: int | None = None
        self._deadline_ns = self._zero_by_ns = self._first_ns = 0
        self._waits_s = 0.0
        self._bytes = self._samples = 0

    def open(self) -> None:
        """Find and open the port. A zero that was taken before a gap stays: the sensor may be under load.

        Raises:
            DeviceError: ``not_found``, ``in_use``, ``no_permission``.
        """
        self.close()
        config = self._config
        self._where = find_ports(self.name, config.port, self._adapter, self._lister)[0]
        self._line = open_port(self.name, self._where, config.baudrate, flush=False)
        self._adapter = adapter_at(self._where, self._lister) or self._adapter
        self._bad = 0
        self._parser = parser_for(config)
        self._stamps = Dejitter(round(NS_PER_S / config.rate_hz))
        self._wire.receive(self._read, 0)  # what was sent before has no time
        self._wait(config.open_timeout_s)
        self._samples = 0
        self._zero_by_ns = self._clock.now_ns() + round(config.longest_start_s() * NS_PER_S)

    def poll(self) -> bool:
        """Take in what has come, publish its samples; whether there were any.

        Raises:
            DeviceError: ``gone``. Within `silence_s`, or `open_timeout_s` at first, ``silent``: nothing came;
                ``noise``: nothing that can be read; ``slow``: too few samples for a zero.
        """
        line = self._line
        if line is None:
            raise DeviceError(self.name, FaultKind.GONE, self._where, "not open", self._last_good_ns)
        before = self.samples.published
        data = self._wire.receive(self._read, POLL_NS)
        if data is None:
            data = self._read(0, 0.0)  # a plug that was pulled sends nothing, and has to be looked for
        if data:
            self._take(data)
        now_ns = self._clock.now_ns()
        if now_ns >= self._deadline_ns or (not self._zeroed and now_ns >= self._zero_by_ns):
            error = self._trouble(now_ns)
            self._count(str(error.kind))
            raise error
        return self.samples.published > before

    def close(self) -> None:
        """Let go of the port. Never raises."""
        line, self._line = self._line, None
        if line is not None:
            with contextlib.suppress(OSError, termios.error):
                line.close()

    def tare(self, still: Callable[[], bool] = always) -> None:
        """Take the mean of the coming `tare_samples` samples as zero, if `still` holds at each of them.

        A zero further than `tare_max_drift_n` from the first is a force, and refused too.
        """
        self._still = still
        self._tare_wanted = True

    def statistics(self) -> Mapping[str, int]:
        """``bad_frames``, ``saturated`` (times that it began), ``tares``, ``tare_refused``, and how often
        ``silent``, ``noise`` and ``slow`` were raised.
        """
        return dict(self._counts)

    def _count(self, key: str, number: int = 1) -> None:
        self._counts[key] = self._counts.get(key, 0) + number

    def _wait(self, seconds: float) -> None:
        self._bytes, self._waits_s = 0, seconds
        self._deadline_ns = self._clock.now_ns() + round(seconds * NS_PER_S)

    def _trouble(self, now_ns: int) -> DeviceError:
        """Why there is no sample: each has a remedy of its own."""
        config = self._config
        kind, detail = FaultKind.SILENT, f"nothing came for {self._waits_s:g} s"
        if 0 < self._samples < _FEW:
            detail += (
                f"; samples since it was opened: {self._samples}; it may have fewer a second than "
                f"rate_hz = {config.rate_hz:g} says"
            )
        if not self._zeroed and self._saturated:
            detail = "no zero could be taken: the sensor is saturated"
        elif now_ns < self._deadline_ns:
            kind, rate_hz = FaultKind.SLOW, (self._samples - 1) / (now_ns - self._first_ns) * NS_PER_S
            detail = (
                f"{self._samples} of the {config.tare_samples} samples (tare_samples) for a zero came in "
                f"time: {rate_hz:.2g} a second, and rate_hz says {config.rate_hz:g}"
            )
        elif self._bytes:
            kind = FaultKind.NOISE
            shown = ascii(self._parser.unread()[:40].decode("latin-1"))
            detail = (
                f"{self._bytes} bytes came in {self._waits_s:g} s, and none are {self._parser.expected()}: "
                f"{shown}; look at format, channels and separator, and at baudrate = {config.baudrate}"
            )
        return DeviceError(self.name, kind, self._where, detail, self._last_good_ns)

    def _read(self, units: int, timeout_s: float) -> bytes | None:
        """All that is there, once `units` bytes are; ``None`` if nothing comes."""
        line = self._line
        if line is None:
            return None
        data = b""
        with naming_loss(self.name, self._where, self._last_good_ns):
            while len(data) < max(1, units):
                if not select.select([line.fileno()], [], [], min(timeout_s, ARRIVAL_S))[0]:
                    break
                chunk = os.read(line.fileno(), 65536)
                if not chunk:
                    raise OSError("hung up")
                data += chunk
        return data or None

    def _take(self, data: bytes) -> None:
        self._bytes += len(data)
        rows = self._parser.feed(data)
        lost, self._bad = self._parser.bad - self._bad, self._parser.bad
        if lost:
            self._count("bad_frames", lost)
        stamps = self._stamps.stamps(self._clock.now_ns(), len(rows), lost)
        for stamp, counts in zip(stamps, rows, strict=True):
            self._sample(stamp, counts)

    def _sample(self, stamp_ns: int, counts: Floats) -> None:
        self._first_ns = self._first_ns if self._samples else stamp_ns
        self._samples += 1
        full = self._config.full_scale_counts
        saturated = np.abs(counts) >= full if full else np.zeros(len(counts), dtype=bool)
        beyond = bool(saturated.any())
        if beyond and not self._saturated:
            self._count("saturated")
        self._saturated = beyond
        force = self._matrix @ counts
        if self._tare_wanted and not beyond:
            self._tare_with(force)
        if self._zeroed:
            self.samples.push(stamp_ns, force=force - self._zero, saturated=saturated)
            self._last_good_ns = stamp_ns
            self._wait(self._config.longest_silence_s)
        elif not beyond or self._samples == 1:
            self._wait(self._config.longest_silence_s)

    def _tare_with(self, force: Floats) -> None:
        if self._zeroed and not self._still():
            self._end_tare("the arm moves")
            return
        self._tare.append(force)
        samples, limit = self._config.tare_samples, self._config.tare_max_drift_n
        if not self._zeroed and len(self._tare) == max(1, samples // 10):
            self._zero = self._first_zero = np.median(
                self._tare, axis=0
            )  # should a force set in from here on
        if len(self._tare) < samples:
            return
        zero = np.mean(self._tare, axis=0)
        drift = float(np.abs(zero - self._first_zero).max())
        if drift > limit:
            self._count("tare_refused")
            self._end_tare(f"{drift:.1f} N off: tare_max_drift_n is {limit:g}")
        else:
            self._first_zero = self._first_zero if self._zeroed else zero
            self._zero = zero
            self._count("tares")
            self._end_tare()
        self._zeroed = True

    def _end_tare(self, refused: str = "") -> None:
        self._tare = []
        self._tare_wanted = False
        self.tared += (refused,)
