"""A Feetech servo bus that is not there: the STS3215 packet protocol, answered register by register.

What the servos do is the business of a `ServoBank`: the simulated tabletop, or `SimpleServoBank` in tests.
Packets, checksums, registers, write locks, alarms and everything that can go wrong on the line are here.

Source: Feetech's SCS/STS communication protocol (instruction packet ``FF FF id length instruction
parameters checksum``, status packet ``FF FF id length error parameters checksum``).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import zip_longest
from operator import and_
from pathlib import Path

from drivers.emulated_port import EmulatedPort
from drivers.feetech import registers as reg
from drivers.feetech.servo import EmulatedServo, ServoBank
from runtime.clock import NS_PER_S, Clock

PING, READ, WRITE, REG_WRITE, ACTION = 0x01, 0x02, 0x03, 0x04, 0x05
FACTORY_RESET, SYNC_READ, SYNC_WRITE = 0x06, 0x82, 0x83

_FRAME_BYTES = 6
"""Of an instruction packet without parameters."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction packet. `servo_id` may be the broadcast id."""

    servo_id: int
    code: int
    parameters: bytes


def checksum(body: bytes | bytearray) -> int:
    """Of everything between header and checksum."""
    return ~sum(body) & 0xFF


def status_packet(servo_id: int, error: int, parameters: bytes = b"") -> bytes:
    """What a servo answers."""
    body = bytes([servo_id, len(parameters) + 2, error]) + parameters
    return b"\xff\xff" + body + bytes([checksum(body)])


def _at_once(packets: Iterable[bytes | None]) -> Iterator[bytes]:
    """What is on the line when several servos of one id answer at the same time: a low level wins."""
    sent = [packet for packet in packets if packet is not None]
    if sent:
        yield bytes(reduce(and_, column) for column in zip_longest(*sent, fillvalue=0xFF))


def take_instructions(buffer: bytearray) -> Iterator[Instruction]:
    """Take every whole packet out of `buffer`, skipping junk; an unfinished one stays for later."""
    while (start := buffer.find(b"\xff\xff")) >= 0:
        del buffer[:start]
        if len(buffer) < 4:
            return
        servo_id, length = buffer[2], buffer[3]
        if servo_id == 0xFF or length < 2:
            del buffer[0]
            continue
        if len(buffer) < length + 4:
            return
        body, given = buffer[2 : length + 3], buffer[length + 3]
        if checksum(body) != given:
            del buffer[0]
            continue
        del buffer[: length + 4]
        yield Instruction(servo_id, body[2], bytes(body[3:]))
    if buffer[-1:] != b"\xff":
        buffer.clear()


class BusFaults:
    """What goes wrong on the line. Settable from any thread, between any two packets."""

    def __init__(self, seed: int = 0) -> None:
        self.silent: set[int] = set()
        """Servos that do not answer, and do not listen either."""
        self.lose_fraction = 0.0
        self.corrupt_fraction = 0.0
        self._random = random.Random(seed)  # noqa: S311 - has to repeat
        self._lose = 0
        self._corrupt = 0
        self._late = 0

    def lose_next(self, packets: int) -> None:
        """Swallow the next status packets."""
        self._lose = packets

    def corrupt_next(self, packets: int) -> None:
        """Flip a bit of the next status packets."""
        self._corrupt = packets

    def delay_next(self, packets: int) -> None:
        """Keep the next status packets back until the next instruction has arrived."""
        self._late = packets

    def clear(self) -> None:
        """Nothing is wrong any more."""
        self.silent.clear()
        self.lose_fraction = self.corrupt_fraction = 0.0
        self._lose = self._corrupt = self._late = 0

    def apply(self, packet: bytes) -> tuple[bytes, bytes]:
        """What of a status packet goes out now, and what later."""
        if self._lose > 0 or self._random.random() < self.lose_fraction:
            self._lose = max(0, self._lose - 1)
            return b"", b""
        if self._corrupt > 0 or self._random.random() < self.corrupt_fraction:
            self._corrupt = max(0, self._corrupt - 1)
            spoiled = bytearray(packet)
            spoiled[self._random.randrange(4, len(packet))] ^= 1 << self._random.randrange(8)
            return bytes(spoiled), b""
        if self._late > 0:
            self._late -= 1
            return b"", packet
        return packet, b""


class FeetechEmulator:
    """The servos of `bank` on a pseudo-terminal.

    Args:
        bank: what the servos do.
        link: path under which the port appears; kept over `unplug` and `plug`.
        registers: initial EEPROM contents by servo id and register, e.g. homing offsets and limits.
        baudrate: that the servos are shipped with; one whose Baud_Rate says something else than the line's
            speed understands nothing.
        seed: of the random faults.
        clock: with one, bytes take as long as on the wire at the line's speed, and each answer comes after
            its servo's Return_Delay_Time; a goal is obeyed once its last byte is through, servos measure when
            their turn comes. Without one everything is answered at once.

    Attributes:
        port: the address for `FeetechOptions.port`.
        faults: switches for what goes wrong.
        instructions: how many instruction packets were understood.
    """

    def __init__(
        self,
        bank: ServoBank,
        link: str | Path,
        *,
        registers: Mapping[int, Mapping[reg.Register, int]] | None = None,
        baudrate: int = 1_000_000,
        seed: int = 0,
        clock: Clock | None = None,
    ) -> None:
        contents, speed = registers or {}, {reg.BAUD_RATE: reg.BAUD_CODES[baudrate]}
        self.servos = {i: EmulatedServo(i, bank, {**speed, **contents.get(i, {})}) for i in bank.ids}
        self.faults = BusFaults(seed)
        self.instructions = 0
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._held_back = b""
        self._speed: int | None = None
        self._clock, self._busy_ns = clock, 0
        self._line = EmulatedPort(link, self._on_data, self._on_idle)
        self.port = self._line.path

    @property
    def plugged(self) -> bool:
        """Whether the adapter is in."""
        return self._line.plugged

    def unplug(self) -> None:
        """Pull the USB plug; the servos keep their power."""
        self._line.unplug()

    def plug(self) -> None:
        """Put it back."""
        self._buffer.clear()
        self._held_back = b""
        self._line.plug()

    def power_cycle(self) -> None:
        """Take the servos' power away and give it back: torque off, unlocked writes kept."""
        self.restart(*self.servos)

    def restart(self, *servo_ids: int) -> None:
        """Let the servos shipped under these ids start anew, as after a brownout."""
        with self._lock:
            for servo_id in servo_ids:
                self.servos[servo_id].power_up()

    def overload(self, servo_id: int) -> None:
        """Let the servo shipped as `servo_id` protect itself: torque off, alarm up, answering as before."""
        with self._lock:
            self.servos[servo_id].overload()

    def close(self) -> None:
        """Unplug for good. Idempotent."""
        self._line.close()

    def _on_idle(self) -> None:
        self._buffer.clear()

    def _on_data(self, data: bytes) -> None:
        self._speed = self._line.baudrate
        if all(servo.baudrate != self._speed for servo in self.servos.values()):
            return
        self._buffer += data
        with self._lock:
            if self._clock is not None:
                self._busy_ns = max(self._busy_ns, self._clock.now_ns())
            for instruction in take_instructions(self._buffer):
                self.instructions += 1
                self._carry(_FRAME_BYTES + len(instruction.parameters))
                out, self._held_back = self._held_back, b""
                for packet in self._answer(instruction):
                    self._carry(len(packet), self._delay_ns(packet[2]))
                    now, later = self.faults.apply(packet)
                    out += now
                    self._held_back += later
                if out:
                    self._line.write(out)

    def _carry(self, count: int, delay_ns: int = 0) -> None:
        """So many bytes go over the wire, after a pause."""
        if self._clock is not None and self._speed:
            self._busy_ns += delay_ns + count * reg.BITS_A_BYTE * NS_PER_S // self._speed
            self._clock.wait_until_ns(self._busy_ns)

    def _delay_ns(self, servo_id: int) -> int:
        alike = (each for each in self.servos.values() if each.current_id == servo_id)
        return max((each.get(reg.RETURN_DELAY_TIME) * reg.RETURN_DELAY_NS for each in alike), default=0)

    def _answer(self, instruction: Instruction) -> Iterator[bytes]:
        if instruction.code == SYNC_READ:
            yield from self._sync_read(instruction.parameters)
        elif instruction.code == SYNC_WRITE:
            self._sync_write(instruction.parameters)
        elif instruction.servo_id == reg.BROADCAST_ID:
            everybody = dict.fromkeys(each.current_id for each in self.servos.values())
            for alike in self._listening(list(everybody)):
                answers = [self._single(servo, instruction) for servo in alike]
                if instruction.code == PING:
                    yield from _at_once(answers)
        else:
            for alike in self._listening([instruction.servo_id]):
                answers = [self._single(servo, instruction) for servo in alike]
                loud = [each.answers_all or instruction.code in (PING, READ) for each in alike]
                yield from _at_once(a if heard else None for a, heard in zip(answers, loud, strict=True))

    def _listening(self, ids: Sequence[int]) -> list[list[EmulatedServo]]:
        """Those of each of `ids` that are there and hear, in that order: more than one, where they share it.

        Ids may have been rewritten.
        """
        awake = [s for s in self.servos.values() if s.servo_id not in self.faults.silent]
        hearing = [servo for servo in awake if servo.baudrate == self._speed]
        groups = [[servo for servo in hearing if servo.current_id == servo_id] for servo_id in ids]
        return [alike for alike in groups if alike]

    def _single(self, servo: EmulatedServo, instruction: Instruction) -> bytes | None:
        parameters = instruction.parameters
        answer_id, data = servo.current_id, b""
        if instruction.code == READ and len(parameters) == 2:
            data = servo.read(parameters[0], parameters[1])
        elif instruction.code == WRITE and len(parameters) > 1:
            servo.write(parameters[0], parameters[1:])
        elif instruction.code == REG_WRITE and len(parameters) > 1:
            servo.keep(parameters[0], parameters[1:])
        elif instruction.code == ACTION:
            servo.act()
        elif instruction.code == FACTORY_RESET:
            servo.factory_reset()
        elif instruction.code != PING:
            return None
        return status_packet(answer_id, servo.error(), data)

    def _sync_read(self, parameters: bytes) -> Iterator[bytes]:
        if len(parameters) < 2:
            return
        start, size = parameters[0], parameters[1]
        for alike in self._listening(list(parameters[2:])):
            yield from _at_once(
                status_packet(each.current_id, each.error(), each.read(start, size)) for each in alike
            )

    def _sync_write(self, parameters: bytes) -> None:
        if len(parameters) < 2:
            return
        start, size = parameters[0], parameters[1]
        rows = parameters[2:]
        for at in range(0, len(rows) - size, size + 1):
            for alike in self._listening([rows[at]]):
                for servo in alike:
                    servo.write(start, rows[at + 1 : at + 1 + size])
