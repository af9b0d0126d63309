"""One emulated STS3215: its register file, and what writing to it does to a `ServoBank`."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from drivers.feetech import registers as reg
from runtime.clock import NS_PER_S, Clock


@dataclass(frozen=True, slots=True)
class ServoReading:
    """What one servo measures, in its own units.

    `position` in encoder ticks (4096 a turn, before the homing offset), `velocity` in ticks/s, `load` in
    0.1% of stall torque, `current` in 6.5 mA, `voltage` in 0.1 V, `temperature` in degrees Celsius.
    """

    position: int
    velocity: int = 0
    load: int = 0
    current: int = 0
    voltage: int = 120
    temperature: int = 30


class ServoBank(Protocol):
    """What moves when registers are written. Called on the emulator's thread; all ticks are the encoder's
    own, before any homing offset.
    """

    @property
    def ids(self) -> Sequence[int]:
        """The servos' ids, as shipped."""

    def reading(self, servo_id: int) -> ServoReading:
        """The servo's state now."""

    def set_goal(self, servo_id: int, ticks: int) -> None:
        """The servo's position loop now aims at `ticks` (within its limits already)."""

    def set_torque(self, servo_id: int, enabled: bool) -> None:
        """Torque was switched; when on, the goal last set is in force."""

    def set_gains(self, servo_id: int, p: int, i: int, d: int) -> None:
        """The position loop's coefficients, as in the registers (32, 0, 32 as shipped)."""

    def set_torque_limit(self, servo_id: int, limit: int) -> None:
        """In 0.1% of stall torque."""


_DEFAULTS: Mapping[reg.Register, int] = {
    reg.FIRMWARE_MAJOR: 3,
    reg.FIRMWARE_MINOR: 10,
    reg.MODEL_NUMBER: reg.MODEL_STS3215,
    reg.RETURN_DELAY_TIME: 250,
    reg.RESPONSE_STATUS_LEVEL: 1,
    reg.MAX_POSITION_LIMIT: 4095,
    reg.MAX_TEMPERATURE_LIMIT: 70,
    reg.MAX_VOLTAGE_LIMIT: 140,
    reg.MIN_VOLTAGE_LIMIT: 40,
    reg.MAX_TORQUE_LIMIT: 1000,
    reg.UNLOADING_CONDITION: 44,
    reg.LED_ALARM_CONDITION: 47,
    reg.P_COEFFICIENT: 32,
    reg.D_COEFFICIENT: 32,
    reg.MINIMUM_STARTUP_FORCE: 16,
    reg.CW_DEAD_ZONE: 1,
    reg.CCW_DEAD_ZONE: 1,
    reg.PROTECTION_CURRENT: 500,
    reg.ANGULAR_RESOLUTION: 1,
    reg.PROTECTIVE_TORQUE: 20,
    reg.PROTECTION_TIME: 200,
    reg.OVERLOAD_TORQUE: 80,
    reg.MOVING_VELOCITY_THRESHOLD: 2,
    reg.MAXIMUM_VELOCITY_LIMIT: 150,
    reg.MAXIMUM_ACCELERATION: 100,
    reg.ACCELERATION_MULTIPLIER: 1,
}


def _overlaps(register: reg.Register, start: int, end: int) -> bool:
    return start < register.end and register.address < end


def _within(address: int, areas: Sequence[range]) -> bool:
    return any(address in area for area in areas)


class EmulatedServo:
    """The registers of one servo of `bank`. Not thread-safe: its bus serialises.

    What a write does is the maker's memory table and what was measured on an STS3215: a goal turns torque on;
    what is written to an EEPROM address while Lock is 1 holds until the next restart; a new operating mode
    turns torque off and forgets the acceleration, which never exceeds Maximum_Acceleration, unless that is 0.
    """

    def __init__(self, servo_id: int, bank: ServoBank, contents: Mapping[reg.Register, int]) -> None:
        self.servo_id = servo_id
        self.alarms = 0
        """Error bits raised on top of what the readings say, for tests and fault injection."""
        self._bank = bank
        self._memory = bytearray(256)
        self._shipped: dict[reg.Register, int] = {**_DEFAULTS, reg.ID: servo_id, **contents}
        self._kept: tuple[int, bytes] | None = None
        self._goal_given = False
        self._effects: list[tuple[tuple[reg.Register, ...], Callable[[], None]]] = [
            ((reg.P_COEFFICIENT, reg.I_COEFFICIENT, reg.D_COEFFICIENT), self._gains_changed),
            ((reg.ACCELERATION, reg.MAXIMUM_ACCELERATION), self._acceleration_changed),
            ((reg.TORQUE_LIMIT,), self._torque_limit_changed),
            ((reg.GOAL_POSITION,), self._goal_written),
            ((reg.TORQUE_ENABLE,), self._torque_changed),
        ]
        for register, value in self._shipped.items():
            self._put(register, value)
        self._eeprom = bytes(self._memory)
        self.power_up()

    @property
    def current_id(self) -> int:
        """The id it answers to, which may have been rewritten."""
        return self.get(reg.ID)

    @property
    def baudrate(self) -> int:
        """The speed that it listens at, in bit/s."""
        return reg.BAUDRATES.get(self.get(reg.BAUD_RATE), 1_000_000)

    @property
    def answers_all(self) -> bool:
        """Whether it answers writes too."""
        return self.get(reg.RESPONSE_STATUS_LEVEL) != 0

    def get(self, register: reg.Register) -> int:
        """A register's value as last stored (present values: as last read)."""
        return register.decode(self._memory[register.address : register.end])

    def _put(self, register: reg.Register, value: int) -> None:
        self._memory[register.address : register.end] = register.encode(value)

    def power_up(self) -> None:
        """Start as after a power cycle: EEPROM as saved, torque off, no acceleration, aiming where it is."""
        self._memory[:] = bytes(len(self._memory))
        for area in reg.EEPROM:
            self._memory[area.start : area.stop] = self._eeprom[area.start : area.stop]
        self._put(reg.LOCK, 1)
        self._put(reg.TORQUE_LIMIT, self.get(reg.MAX_TORQUE_LIMIT))
        self._kept, self._goal_given = None, False
        self._refresh()
        self._bank.set_torque(self.servo_id, False)
        self._gains_changed()
        self._torque_limit_changed()

    def overload(self) -> None:
        """Cut torque, as after too long under load; the alarm stands until torque is enabled again."""
        self.alarms |= reg.OVERLOAD_BIT
        self._put(reg.TORQUE_ENABLE, 0)
        self._torque_changed()

    def factory_reset(self) -> None:
        """Everything but the id as shipped, without calibration."""
        servo_id = self.get(reg.ID)
        for area in reg.EEPROM:
            self._memory[area.start : area.stop] = bytes(len(area))
        for register, value in {**_DEFAULTS, reg.ID: servo_id}.items():
            self._put(register, value)
        self._eeprom = bytes(self._memory)

    def error(self) -> int:
        """The error byte of a status packet now."""
        now = self._bank.reading(self.servo_id)
        bits = self.alarms
        if not self.get(reg.MIN_VOLTAGE_LIMIT) <= now.voltage <= self.get(reg.MAX_VOLTAGE_LIMIT):
            bits |= 1
        if now.temperature > self.get(reg.MAX_TEMPERATURE_LIMIT):
            bits |= 4
        return bits

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`, present values fresh."""
        if start < reg.TABLE_END and start + size > reg.PRESENT_POSITION.address:
            self._refresh()
        return bytes(self._memory[start : start + size]).ljust(size, b"\0")

    def _refresh(self) -> None:
        now = self._bank.reading(self.servo_id)
        self._put(reg.PRESENT_POSITION, (now.position - self.get(reg.HOMING_OFFSET)) % reg.TICKS_PER_TURN)
        self._put(reg.PRESENT_VELOCITY, max(-32767, min(32767, now.velocity)))
        self._put(reg.PRESENT_LOAD, max(-1000, min(1000, now.load)))
        self._put(reg.PRESENT_VOLTAGE, max(0, min(255, now.voltage)))
        self._put(reg.PRESENT_TEMPERATURE, max(0, min(255, now.temperature)))
        self._put(reg.PRESENT_CURRENT, max(-32767, min(32767, now.current)))
        self._put(reg.MOVING, int(now.velocity != 0))
        self._put(reg.STATUS, self.error())

    def write(self, start: int, data: bytes) -> None:
        """Store what is writable of `data`, and let it take effect."""
        end = min(start + len(data), reg.TABLE_END)
        mode, saved = self.get(reg.OPERATING_MODE), bytearray(self._eeprom)
        for address in range(start, end):
            if not _within(address, reg.READ_ONLY):
                self._memory[address] = data[address - start]
                saved[address] = data[address - start]
        if self.get(reg.LOCK) == 0:
            self._eeprom = bytes(saved)
        if self.get(reg.OPERATING_MODE) != mode:
            self._mode_changed()
        for triggers, effect in self._effects:
            if any(_overlaps(register, start, end) for register in triggers):
                effect()

    def keep(self, start: int, data: bytes) -> None:
        """Hold a write back until `act`."""
        self._kept = (start, data)

    def act(self) -> None:
        """Do the write that was held back."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            self.write(*kept)

    def _gains_changed(self) -> None:
        gains = (reg.P_COEFFICIENT, reg.I_COEFFICIENT, reg.D_COEFFICIENT)
        self._bank.set_gains(self.servo_id, *(self.get(r) for r in gains))

    def _mode_changed(self) -> None:
        for register in (reg.GOAL_VELOCITY, reg.ACCELERATION, reg.TORQUE_ENABLE):
            self._put(register, 0)
        self._bank.set_torque(self.servo_id, False)

    def _acceleration_changed(self) -> None:
        most = self.get(reg.MAXIMUM_ACCELERATION)
        if most:
            self._put(reg.ACCELERATION, min(most, self.get(reg.ACCELERATION)))

    def _torque_limit_changed(self) -> None:
        self._bank.set_torque_limit(self.servo_id, self.get(reg.TORQUE_LIMIT))

    def _goal_written(self) -> None:
        self._goal_given = True
        self._aim()
        if self.get(reg.TORQUE_ENABLE) != 1:
            self._put(reg.TORQUE_ENABLE, 1)
            self._torque_changed()

    def _aim(self) -> None:
        goal = self.get(reg.GOAL_POSITION)
        low, high = self.get(reg.MIN_POSITION_LIMIT), self.get(reg.MAX_POSITION_LIMIT)
        if low or high:
            goal = max(low, min(high, goal))
        self._bank.set_goal(self.servo_id, goal + self.get(reg.HOMING_OFFSET))

    def _torque_changed(self) -> None:
        state = self.get(reg.TORQUE_ENABLE)
        if state == reg.TORQUE_CALIBRATE_MIDDLE:
            self._put(reg.TORQUE_ENABLE, 0)
            here = self._bank.reading(self.servo_id).position
            self.write(reg.HOMING_OFFSET.address, reg.HOMING_OFFSET.encode(max(-2047, here - 2048)))
            return
        if state == 1:
            self.alarms &= ~reg.OVERLOAD_BIT
            # A goal left in the register is obeyed the moment torque comes on; without one since it was
            # powered it holds where it was then.
            if self._goal_given:
                self._aim()
        self._bank.set_torque(self.servo_id, state == 1)


@dataclass(slots=True)
class _Motion:
    position: float
    goal: float
    stamp_ns: int
    torque: bool = False
    gains: tuple[int, int, int] = (32, 0, 32)
    torque_limit: int = 1000
    overrides: dict[str, int] = field(default_factory=dict)


class SimpleServoBank:
    """Servos that approach their goals exponentially, as the clock moves; for tests and benches.

    Args:
        positions: encoder ticks at the start, by id.
        time_constant_s: of the approach.
    """

    def __init__(self, clock: Clock, positions: Mapping[int, int], time_constant_s: float = 0.05) -> None:
        self._clock = clock
        self._tau_ns = time_constant_s * NS_PER_S
        self._lock = threading.Lock()
        now = clock.now_ns()
        self._servos = {i: _Motion(float(p), float(p), now) for i, p in positions.items()}

    @property
    def ids(self) -> Sequence[int]:
        return list(self._servos)

    def _settle(self, servo_id: int) -> _Motion:
        servo, now = self._servos[servo_id], self._clock.now_ns()
        if servo.torque:
            left = math.exp(-(now - servo.stamp_ns) / self._tau_ns)
            servo.position = servo.goal + (servo.position - servo.goal) * left
        servo.stamp_ns = now
        return servo

    def reading(self, servo_id: int) -> ServoReading:
        with self._lock:
            servo = self._settle(servo_id)
            error = servo.goal - servo.position if servo.torque else 0.0
            values = {
                "position": round(servo.position),
                "velocity": round(error * NS_PER_S / self._tau_ns),
                "load": max(-servo.torque_limit, min(servo.torque_limit, round(error))),
                **servo.overrides,
            }
            return ServoReading(**values)

    def set_goal(self, servo_id: int, ticks: int) -> None:
        with self._lock:
            self._settle(servo_id).goal = float(ticks)

    def set_torque(self, servo_id: int, enabled: bool) -> None:
        with self._lock:
            self._settle(servo_id).torque = enabled

    def set_gains(self, servo_id: int, p: int, i: int, d: int) -> None:
        self._servos[servo_id].gains = (p, i, d)

    def set_torque_limit(self, servo_id: int, limit: int) -> None:
        self._servos[servo_id].torque_limit = limit

    # --- for tests: the hand that moves an arm, and the room it stands in

    def place(self, servo_id: int, ticks: float) -> None:
        """Move a servo by hand."""
        with self._lock:
            self._settle(servo_id).position = float(ticks)

    def override(self, servo_id: int, **values: int) -> None:
        """Let a servo measure `values` (fields of `ServoReading`) whatever it does."""
        with self._lock:
            self._servos[servo_id].overrides.update(values)

    def motion(self, servo_id: int) -> tuple[float, float, bool]:
        """Position and goal in encoder ticks, and whether torque is on."""
        with self._lock:
            servo = self._settle(servo_id)
            return servo.position, servo.goal, servo.torque
