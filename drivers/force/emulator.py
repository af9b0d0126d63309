"""A force sensor that is not there: its bytes on a pseudo-terminal, sent by whoever simulates the force."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from drivers.emulated_port import EmulatedPort
from drivers.force.options import SerialForceOptions
from drivers.force.wire import encode
from runtime.messages import Floats


class ForceEmulator:
    """A sensor as `config` describes it; its port is ignored.

    Args:
        link: path under which the port appears; kept over `unplug` and `plug`.
        bias_counts: what the unloaded sensor says, ``[K]`` or one number; the driver's tare removes it.
        noise_counts: standard deviation of its noise.
        seed: of noise and corruption.

    Attributes:
        port: the address for `SerialForceOptions.port`.
        drift_counts: added to every channel; grows while somebody adds to it.
        silent: sends nothing while set, as a sensor that hangs.
        saturated: says full scale on every channel while set.
    """

    def __init__(
        self,
        link: str | Path,
        config: SerialForceOptions,
        *,
        bias_counts: float | Sequence[float] = 0.0,
        noise_counts: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._config = config
        k = config.channels
        matrix = np.array(config.calibration) if config.calibration else np.eye(k)
        self._counts_per_newton = np.asarray(np.linalg.inv(matrix * config.newtons_per_count), np.float64)
        self._bias = np.broadcast_to(np.asarray(bias_counts, dtype=np.float64), (k,))
        self._noise = noise_counts
        self._generator = np.random.default_rng(seed)
        self._random = random.Random(seed)  # noqa: S311 - has to repeat
        self._corrupt = 0
        self._lose = 0
        self.drift_counts = 0.0
        self.silent = False
        self.saturated = False
        self._port = EmulatedPort(link, lambda data: None)
        self.port = self._port.path

    def send(self, force_n: Sequence[float] | Floats) -> int:
        """Send one sample of `force_n` newtons, ``[K]``; returns how many bytes went onto the wire."""
        counts = self._counts_per_newton @ np.asarray(force_n, dtype=np.float64)
        counts = counts + self._bias + self.drift_counts
        if self._noise:
            counts = counts + self._generator.normal(0.0, self._noise, len(counts))
        full = self._config.full_scale_counts or 32767.0
        counts = np.full(len(counts), full) if self.saturated else np.clip(counts, -full, full)
        return self._send(encode(self._config, counts))

    def _send(self, data: bytes) -> int:
        if self.silent:
            return 0
        if self._lose > 0:
            self._lose -= 1
            return 0
        if self._corrupt > 0:
            self._corrupt -= 1
            spoiled = bytearray(data)
            # Never a line's end: one sample is spoiled, not two.
            spoiled[self._random.randrange(len(data) - 2)] ^= 0x80
            data = bytes(spoiled)
        return self._port.write(data)

    def send_raw(self, data: bytes) -> int:
        """Put any bytes on the wire."""
        return self._port.write(data)

    def corrupt_next(self, samples: int) -> None:
        """Spoil the next samples."""
        self._corrupt = samples

    def lose_next(self, samples: int) -> None:
        """Leave the next samples out."""
        self._lose = samples

    @property
    def plugged(self) -> bool:
        """Whether the sensor is there."""
        return self._port.plugged

    def unplug(self) -> None:
        """Pull the plug."""
        self._port.unplug()

    def plug(self) -> None:
        """Put it back."""
        self._port.plug()

    def close(self) -> None:
        """Unplug for good. Idempotent."""
        self._port.close()
