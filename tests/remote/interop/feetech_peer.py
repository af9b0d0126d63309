"""feetech-cli's simulated STS3215 bus on a pseudo-terminal. Runs in .venv-feetech.

Argument: by servo id, what its registers hold, as JSON. Prints ``port PATH``, then obeys lines of its input
and prints ``done VALUE`` for each: ``restart ID`` (power lost and back), ``drop ID`` (torque off), ``move ID
TICKS`` (by hand, encoder ticks), ``goal ID TICKS`` (somebody else's), ``get ID REGISTER``.
"""

import fcntl
import json
import os
import select
import struct
import sys
import tty

from feetech_cli.simulator import DEFAULTS, EEPROM_END, SimulatedBus, SimulatedServo

TCGETS2 = 0x802C542A


def restart(servo):
    fresh = SimulatedServo(servo.servo_id)
    servo.memory[EEPROM_END:] = fresh.memory[EEPROM_END:]
    servo._store("acceleration", 0)
    servo._settle()


def obey(by_id, line):
    word, servo_id, *rest = line.split()
    servo = by_id[int(servo_id)]
    if word == "restart":
        restart(servo)
    elif word == "drop":
        servo._store("torque_enable", 0)
    elif word == "move":
        servo.raw_position = int(rest[0])
        servo._settle()
    elif word == "goal":
        servo.apply_write(42, int(rest[0]).to_bytes(2, "little"))
    return servo.get(rest[0]) if word == "get" else ""


def packets(buffer):
    while len(buffer) >= 4 and len(buffer) >= buffer[3] + 4:
        yield bytes(buffer[: buffer[3] + 4])
        del buffer[: buffer[3] + 4]


def shipped(servo_id, registers):
    servo = SimulatedServo(servo_id)
    for name, value in registers.items():
        if name != "raw_position":
            servo._store(name, value if value >= 0 else -value | 0x800)
    servo.raw_position = registers.get("raw_position", DEFAULTS["present_position"])
    servo._settle()
    return servo


def main():
    given = json.loads(sys.argv[1]).items()
    servos = [shipped(int(servo_id), registers) for servo_id, registers in given]
    bus = SimulatedBus(servos)
    by_id = {servo.servo_id: servo for servo in servos}
    master, slave = os.openpty()
    tty.setraw(slave)
    print("port", os.ttyname(slave), flush=True)
    buffer = bytearray()
    while True:
        ready, _, _ = select.select([master, sys.stdin], [], [])
        if master in ready:
            bus.baudrate = struct.unpack("4I20sII", fcntl.ioctl(slave, TCGETS2, bytes(44)))[6]
            buffer += os.read(master, 4096)
            for packet in packets(buffer):
                bus.write(packet)
                if answer := bus.read(4096):
                    os.write(master, answer)
        elif sys.stdin in ready:
            line = os.read(0, 4096).decode()
            if not line:
                return
            print("done", obey(by_id, line), flush=True)


if __name__ == "__main__":
    main()
