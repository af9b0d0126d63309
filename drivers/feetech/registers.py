"""The STS3215's control table and number formats, as the driver and the emulator both need them.

Source: Feetech's STS/SMS series memory table. Addresses 0 to 39 and 78 to 86 are kept without power (if
they were written while Lock was 0), the others are not.
Multi-byte values are little endian; signed ones are sign-magnitude, with the sign in a register-specific
bit: 15 for positions, velocities and currents, 11 for the homing offset, 10 for the load.
"""

from __future__ import annotations

from dataclasses import dataclass

TICKS_PER_TURN = 4096
MODEL_STS3215 = 777
BROADCAST_ID = 0xFE
MAX_ID = 0xFD

BAUD_CODES = {
    1_000_000: 0,
    500_000: 1,
    250_000: 2,
    128_000: 3,
    115_200: 4,
    76_800: 5,
    57_600: 6,
    38_400: 7,
}
"""What the baud-rate register holds for each line speed, in bit/s: the maker's table (LeRobot's has other
speeds from 5 on)."""
BAUDRATES = {code: speed for speed, code in BAUD_CODES.items()}


@dataclass(frozen=True, slots=True)
class Register:
    """One entry of the control table: `size` bytes from `address`; `sign_bit` if it is signed."""

    name: str
    address: int
    size: int
    sign_bit: int | None = None

    @property
    def end(self) -> int:
        """The address after its last byte."""
        return self.address + self.size

    def encode(self, value: int) -> bytes:
        """The bytes that go over the wire.

        Raises:
            ValueError: `value` does not fit.
        """
        magnitude = abs(value) if self.sign_bit is not None else value
        limit = 1 << (self.sign_bit if self.sign_bit is not None else 8 * self.size)
        if not 0 <= magnitude < limit:
            low = 1 - limit if self.sign_bit is not None else 0
            raise ValueError(f"{self.name} takes {low} to {limit - 1}, not {value}")
        raw = magnitude | (1 << self.sign_bit if self.sign_bit is not None and value < 0 else 0)
        return raw.to_bytes(self.size, "little")

    def decode(self, data: bytes | bytearray) -> int:
        """The value of the register's bytes."""
        raw = int.from_bytes(data[: self.size], "little")
        if self.sign_bit is None or not raw & (1 << self.sign_bit):
            return raw & ((1 << self.sign_bit) - 1) if self.sign_bit is not None else raw
        return -(raw & ((1 << self.sign_bit) - 1))


FIRMWARE_MAJOR = Register("Firmware_Major_Version", 0, 1)
FIRMWARE_MINOR = Register("Firmware_Minor_Version", 1, 1)
MODEL_NUMBER = Register("Model_Number", 3, 2)
ID = Register("ID", 5, 1)
BAUD_RATE = Register("Baud_Rate", 6, 1)
RETURN_DELAY_TIME = Register("Return_Delay_Time", 7, 1)
RESPONSE_STATUS_LEVEL = Register("Response_Status_Level", 8, 1)
MIN_POSITION_LIMIT = Register("Min_Position_Limit", 9, 2)
MAX_POSITION_LIMIT = Register("Max_Position_Limit", 11, 2)
MAX_TEMPERATURE_LIMIT = Register("Max_Temperature_Limit", 13, 1)
MAX_VOLTAGE_LIMIT = Register("Max_Voltage_Limit", 14, 1)
MIN_VOLTAGE_LIMIT = Register("Min_Voltage_Limit", 15, 1)
MAX_TORQUE_LIMIT = Register("Max_Torque_Limit", 16, 2)
PHASE = Register("Phase", 18, 1)
UNLOADING_CONDITION = Register("Unloading_Condition", 19, 1)
LED_ALARM_CONDITION = Register("LED_Alarm_Condition", 20, 1)
P_COEFFICIENT = Register("P_Coefficient", 21, 1)
D_COEFFICIENT = Register("D_Coefficient", 22, 1)
I_COEFFICIENT = Register("I_Coefficient", 23, 1)
MINIMUM_STARTUP_FORCE = Register("Minimum_Startup_Force", 24, 2)
CW_DEAD_ZONE = Register("CW_Dead_Zone", 26, 1)
CCW_DEAD_ZONE = Register("CCW_Dead_Zone", 27, 1)
PROTECTION_CURRENT = Register("Protection_Current", 28, 2)
ANGULAR_RESOLUTION = Register("Angular_Resolution", 30, 1)
HOMING_OFFSET = Register("Homing_Offset", 31, 2, sign_bit=11)
OPERATING_MODE = Register("Operating_Mode", 33, 1)
PROTECTIVE_TORQUE = Register("Protective_Torque", 34, 1)
PROTECTION_TIME = Register("Protection_Time", 35, 1)
OVERLOAD_TORQUE = Register("Overload_Torque", 36, 1)

TORQUE_ENABLE = Register("Torque_Enable", 40, 1)
ACCELERATION = Register("Acceleration", 41, 1)
GOAL_POSITION = Register("Goal_Position", 42, 2, sign_bit=15)
GOAL_TIME = Register("Goal_Time", 44, 2)
GOAL_VELOCITY = Register("Goal_Velocity", 46, 2, sign_bit=15)
TORQUE_LIMIT = Register("Torque_Limit", 48, 2)
LOCK = Register("Lock", 55, 1)
PRESENT_POSITION = Register("Present_Position", 56, 2, sign_bit=15)
PRESENT_VELOCITY = Register("Present_Velocity", 58, 2, sign_bit=15)
PRESENT_LOAD = Register("Present_Load", 60, 2, sign_bit=10)
PRESENT_VOLTAGE = Register("Present_Voltage", 62, 1)
PRESENT_TEMPERATURE = Register("Present_Temperature", 63, 1)
STATUS = Register("Status", 65, 1)
MOVING = Register("Moving", 66, 1)
PRESENT_CURRENT = Register("Present_Current", 69, 2, sign_bit=15)
MOVING_VELOCITY_THRESHOLD = Register("Moving_Velocity_Threshold", 80, 1)
MAXIMUM_VELOCITY_LIMIT = Register("Maximum_Velocity_Limit", 84, 1)
MAXIMUM_ACCELERATION = Register("Maximum_Acceleration", 85, 1)
ACCELERATION_MULTIPLIER = Register("Acceleration_Multiplier", 86, 1)
TABLE_END = 87

READ_ONLY = (range(ID.address), range(PRESENT_POSITION.address, 78))
"""What an instruction packet cannot change."""
EEPROM = (range(40), range(78, TABLE_END))
"""What is kept without power."""

STATE_BLOCK = (PRESENT_POSITION.address, PRESENT_LOAD.end - PRESENT_POSITION.address)
"""Start and length of position, velocity and load: one contiguous read."""
DRIVE_BLOCK = (TORQUE_ENABLE.address, PRESENT_LOAD.end - TORQUE_ENABLE.address)
"""Start and length of the same with the goal and whether torque is on: what a goal is preceded by."""
HEALTH_BLOCK = (P_COEFFICIENT.address, PRESENT_CURRENT.end - P_COEFFICIENT.address)
"""Start and length of the same plus voltage, temperature, status and current, whether torque is on, and
`VOLATILE`."""

VOLATILE = (P_COEFFICIENT, D_COEFFICIENT, I_COEFFICIENT, ACCELERATION, TORQUE_LIMIT, LOCK)
"""What is written at opening and lost when a servo restarts: the gains go back to what the EEPROM holds, the
acceleration to 0, the torque limit to Max_Torque_Limit, the lock to what the firmware likes."""

TORQUE_CALIBRATE_MIDDLE = 128
"""Written to Torque_Enable: take the present position as the middle (2048)."""

BITS_A_BYTE = 10
"""On the wire, with start and stop."""
RETURN_DELAY_NS = 2_000
"""Nanoseconds per unit of Return_Delay_Time."""
CURRENT_A = 0.0065
"""Amperes per unit of Present_Current."""
VOLTAGE_V = 0.1
"""Volts per unit of Present_Voltage and its limits."""
LOAD_FRACTION = 0.001
"""Fraction of stall torque per unit of Present_Load and of the torque limits."""

OVERLOAD_BIT = 32
ERROR_BITS = {
    1: "voltage",
    2: "angle_sensor",
    4: "overtemperature",
    8: "overcurrent",
    OVERLOAD_BIT: "overload",
}
"""The bits of a status packet's error byte."""


def alarm_names(error: int) -> tuple[str, ...]:
    """The alarms that an error byte stands for; one without a name in the table goes by its bit."""
    bits = [1 << at for at in range(8) if error >> at & 1]
    return tuple(ERROR_BITS.get(bit, f"bit_{bit.bit_length() - 1}") for bit in bits)
