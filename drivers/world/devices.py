"""The emulators that the world feeds, and their faults."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from drivers.feetech import registers as reg
from drivers.feetech.emulator import FeetechEmulator
from drivers.force.config import ForceConfig
from drivers.force.emulator import ForceEmulator
from drivers.opencv_camera.emulator import MjpegEmulator
from drivers.world.config import WorldConfig, arm_wire, leader_wire
from drivers.world.faults import Fault
from drivers.world.servos import ArmBank
from runtime.messages import ColorImage, Floats


class Devices:
    """Every arm's bus, the force sensor and the wrist camera, each on its own wire.

    Args:
        folder: where the serial ports appear.
        force: the sensor as the runtime is configured to read it.
        banks: the arms' servos, by what their wires are called (`wires`).
        baudrates: that they are set to, where it is not what servos are shipped with.
    """

    def __init__(
        self,
        config: WorldConfig,
        force: ForceConfig,
        folder: Path,
        banks: Mapping[str, ArmBank],
        baudrates: Mapping[str, int],
    ) -> None:
        self._dt_s = 1 / config.force.rate_hz
        self._newtons_per_count = force.newtons_per_count
        self._constant: Floats | None = None
        self._drift_counts_s = 0.0
        self._channels = force.channels
        with contextlib.ExitStack() as stack:
            self.buses = {
                wire: _bus(bank, folder / wire, config.seed + number, baudrates.get(wire, 1_000_000))
                for number, (wire, bank) in enumerate(banks.items())
            }
            for bus in self.buses.values():
                stack.callback(bus.close)
            offset = np.resize(np.array(config.force.offset_n), force.channels)
            self.force = ForceEmulator(
                folder / "force",
                force,
                bias_counts=list(offset / force.newtons_per_count),
                noise_counts=config.force.noise_n / force.newtons_per_count,
                seed=config.seed,
            )
            stack.callback(self.force.close)
            wrist = config.wrist
            self.wrist = MjpegEmulator(wrist.width, wrist.height, quality=wrist.jpeg_quality)
            stack.callback(self.wrist.close)
            self._stack = stack.pop_all()

    def addresses(self) -> dict[str, str]:
        """By wire."""
        return {
            **{wire: bus.port for wire, bus in self.buses.items()},
            "force": self.force.port,
            "wrist": self.wrist.url,
        }

    def send_force(self, force_n: Floats) -> int:
        """One sample ``[3]``, fitted to the sensor's channels; returns how many bytes went out."""
        self.force.drift_counts += self._drift_counts_s * self._dt_s
        sample = np.zeros(self._channels)
        count = min(self._channels, len(force_n))
        sample[:count] = force_n[:count]
        return self.force.send(sample if self._constant is None else self._constant)

    def send_wrist(self, color: ColorImage, stamp_ns: int) -> int:
        """One picture; returns 1 if anybody gets it."""
        return int(self.wrist.publish(color, stamp_ns) > 0)

    def inject(self, fault: Fault) -> None:
        """Make `fault` happen; those of the table and the head camera are not for here."""
        if fault.device == "wrist":
            self.wrist.inject(fault.kind)
        elif fault.device == "force":
            self._force_fault(fault)
        elif fault.device in self.buses:
            _bus_fault(self.buses[fault.device], fault)
        else:
            raise ValueError(f"no device {fault.device!r}; arms are {', '.join(self.buses)}")

    def _force_fault(self, fault: Fault) -> None:
        if fault.kind == "gone":
            self.force.unplug()
        elif fault.kind == "back":
            self.force.plug()
        elif fault.kind == "saturated":
            self.force.saturated = True
        elif fault.kind == "drift":
            self._drift_counts_s = fault.value_n / self._newtons_per_count
        elif fault.kind == "constant":
            self._constant = np.full(self._channels, fault.value_n)
        else:
            self.force.saturated = False
            self._constant = None
            self._drift_counts_s = self.force.drift_counts = 0.0

    def close(self) -> None:
        """Take every port away. Idempotent."""
        self._stack.close()


def wires(followers: Mapping[str, ArmBank], leaders: Mapping[str, ArmBank]) -> dict[str, ArmBank]:
    """By wire: ``follower`` and ``leader``; of several arms, ``<name>`` and ``leader_<name>``."""
    own = {arm_wire(name): bank for name, bank in followers.items()}
    return {**own, **{leader_wire(name): bank for name, bank in leaders.items()}}


def _bus(bank: ArmBank, link: Path, seed: int, baudrate: int) -> FeetechEmulator:
    registers = {
        entry["id"]: {
            reg.HOMING_OFFSET: entry["homing_offset"],
            reg.MIN_POSITION_LIMIT: entry["range_min"],
            reg.MAX_POSITION_LIMIT: entry["range_max"],
        }
        for entry in bank.encoders.calibration().values()
    }
    return FeetechEmulator(bank, link, registers=registers, baudrate=baudrate, seed=seed)


def _bus_fault(bus: FeetechEmulator, fault: Fault) -> None:
    faults = bus.faults
    if fault.kind == "unplug":
        bus.unplug()
    elif fault.kind == "plug":
        bus.plug()
    elif fault.kind == "silent":
        faults.silent.add(fault.servo)
    elif fault.kind == "overload":
        bus.overload(fault.servo)
    elif fault.kind == "brownout":
        bus.power_cycle()
    elif fault.kind == "clear":
        faults.clear()
    elif fault.kind == "lose" and fault.fraction:
        faults.lose_fraction = fault.fraction
    elif fault.kind == "corrupt" and fault.fraction:
        faults.corrupt_fraction = fault.fraction
    else:
        act = {"lose": faults.lose_next, "corrupt": faults.corrupt_next, "delay": faults.delay_next}
        act[fault.kind](max(1, fault.count))
