"""Reading and writing STS3215 registers on one bus, with retries and an account of what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import scservo_sdk as scs

from drivers.feetech.alarms import AlarmLog
from drivers.feetech.port import BusPort
from drivers.feetech.registers import (
    BITS_A_BYTE,
    LOCK,
    MAX_ID,
    MODEL_NUMBER,
    RESPONSE_STATUS_LEVEL,
    Register,
)
from drivers.serial_port import naming_loss
from runtime.clock import NS_PER_S
from runtime.messages import DeviceError, FaultKind

_ASKING, _ANSWERING = 8, 6
"""Bytes of a sync read's question and of an answer, besides the ids and what is read."""

_ASKS_NOBODY = bytes([0xFF, 0xFF, MAX_ID, 2, scs.INST_PING, ~(MAX_ID + 2 + scs.INST_PING) & 0xFF])
"""A ping to the last id: even a servo that has it answers otherwise."""


def _where(register: Register) -> tuple[int, int]:
    return register.address, register.size


class FeetechBus:
    """One open bus. Used by one thread.

    Args:
        device: its name in the configuration, for errors.
        names: joint names by servo id, for errors and counters.
        port: what it is on.
        num_retry: further attempts after one that failed.
        alarms: what is known of the servos' alarms from before.

    Attributes:
        errors: failed attempts as ``<joint>.<kind>``; kinds are ``no_reply`` and ``bad_packet``.
        alarms: the servos' alarms.
    """

    def __init__(
        self,
        device: str,
        names: Mapping[int, str],
        port: BusPort,
        num_retry: int,
        alarms: AlarmLog | None = None,
    ) -> None:
        self.device = device
        self.where = port.path
        self.errors: Counter[str] = Counter()
        self.alarms = alarms or AlarmLog(device)
        self.last_failure = FaultKind.NO_REPLY
        """Whether what was last missing of a `sync_read` had not come, or had come spoiled."""
        self.last_good_ns: int | None = None
        """Stamp of the last whole state, set by the arm, for errors."""
        self._names = dict(names)
        self._witness = next(iter(names))
        """A servo that answered not long ago."""
        self._port = port
        self._num_retry = num_retry
        self._unanswered = False
        """Whether an answer is owed that may still come, and would be taken for the next question's."""
        self._packets = scs.PacketHandler(0)

    def close(self) -> None:
        """Let go of the port."""
        self._port.close()

    def name(self, servo_id: int) -> str:
        """The joint that a servo drives."""
        return self._names.get(servo_id, f"servo {servo_id}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # The SDK's busy flag stays up when a call ends in an exception.
        self._port.is_using = False
        with naming_loss(self.device, self.where, self.last_good_ns):
            yield

    def ping(self, servo_id: int) -> int | None:
        """A servo's model number, or ``None`` if nobody answers under this id, or not in an orderly way."""
        return self._model_of(servo_id)[0]

    def _model_of(self, servo_id: int) -> tuple[int | None, int]:
        """As `ping`, with the SDK's result."""
        result = scs.COMM_RX_FAIL
        self._let_late_ones_pass()
        for _ in range(1 + self._num_retry):
            _, result, _ = self._ask(servo_id, scs.INST_PING)
            if result == scs.COMM_SUCCESS:
                where = _where(MODEL_NUMBER)
                data, result, _ = self._ask(servo_id, scs.INST_READ, *where, size=MODEL_NUMBER.size)
            if result == scs.COMM_SUCCESS:
                return MODEL_NUMBER.decode(data), result
            self._settle()
        return None, result

    def _ask(self, servo_id: int, code: int, *parameters: int, size: int = 0) -> tuple[bytes, int, int]:
        """One instruction: what was answered, the SDK's result, the error byte.

        The SDK hands on whatever follows the error byte, as many bytes as were asked for: of one that is
        too short, the checksum. An answer of another length, or with a second one behind it, is no answer.
        """
        instruction = [0, 0, servo_id, len(parameters) + 2, code, *parameters, 0]
        with self._transaction():
            answer, result, error = self._packets.txRxPacket(self._port, instruction)
        if result != scs.COMM_SUCCESS:
            return b"", int(result), 0
        if answer[scs.PKT_LENGTH] != size + 2 or self._port.pending:
            return b"", int(scs.COMM_RX_CORRUPT), 0
        return bytes(answer[scs.PKT_PARAMETER0 : scs.PKT_PARAMETER0 + size]), int(result), int(error)

    def read(self, servo_id: int, register: Register) -> int:
        """One register of one servo.

        Raises:
            DeviceError: ``no_reply`` or ``bad_packet`` after all retries; ``gone``.
        """
        result = scs.COMM_RX_FAIL
        self._let_late_ones_pass()
        for _ in range(1 + self._num_retry):
            data, result, error = self._ask(servo_id, scs.INST_READ, *_where(register), size=register.size)
            if result == scs.COMM_SUCCESS:
                self._note_alarms(servo_id, error)
                return register.decode(data)
            self._failed(servo_id, result)
            self._settle()
        raise self._error(servo_id, result, f"reading {register.name}")

    def write(self, servo_id: int, register: Register, value: int) -> None:
        """Set one register of one servo, and see it acknowledged.

        Raises:
            DeviceError: as `read`.
            ValueError: `value` does not fit.
        """
        data = register.encode(value)
        result = scs.COMM_RX_FAIL
        self._let_late_ones_pass()
        for _ in range(1 + self._num_retry):
            _, result, error = self._ask(servo_id, scs.INST_WRITE, register.address, *data)
            if result == scs.COMM_SUCCESS:
                self._note_alarms(servo_id, error)
                return
            self._failed(servo_id, result)
            self._settle()
        raise self._error(servo_id, result, f"writing {register.name}{self._why_quiet(servo_id)}")

    def _why_quiet(self, servo_id: int) -> str:
        """Whether a servo acknowledges no write because it is told to, in words."""
        level = RESPONSE_STATUS_LEVEL
        data, result, _ = self._ask(servo_id, scs.INST_READ, *_where(level), size=level.size)
        if result != scs.COMM_SUCCESS or level.decode(data):
            return ""
        return f" (its {level.name} is 0: it answers no write; it should be 1)"

    def sync_write(self, register: Register, values: Mapping[int, int], *, asks: bool = True) -> None:
        """Set one register of several servos in one packet, and wait until it has been carried out.

        Nobody acknowledges such a packet. The bus is in order, though: once any servo has answered a later
        question, the packet has gone by. One is asked, once; no answer means nothing. Who asks all of them at
        once anyway says so by `asks`.

        Raises:
            DeviceError: ``gone``.
            ValueError: a value does not fit.
        """
        rows: list[int] = []
        for servo_id, value in values.items():
            rows.append(servo_id)
            rows += register.encode(value)
        with self._transaction():
            self._packets.syncWriteTxOnly(self._port, register.address, register.size, rows, len(rows))
            if not asks:
                return
            self._packets.readTxRx(self._port, self._witness, LOCK.address, LOCK.size)
        self._unanswered |= self._port.starved

    def sync_read(self, ids: Iterable[int], start: int, size: int, num_retry: int = -1) -> dict[int, bytes]:
        """`size` bytes from address `start` of several servos, asked for in one packet.

        Those that did not answer are asked again, alone; whoever is missing from the result stayed silent.
        The SDK's ``GroupSyncRead`` stops at the first servo that is silent and loses the rest.

        Raises:
            DeviceError: ``gone``.
        """
        found: dict[int, bytes] = {}
        missing = list(ids)
        for attempt in range(1 + (self._num_retry if num_retry < 0 else num_retry)):
            if attempt:
                self._settle()
            with self._transaction():
                result = self._attempt(missing, start, size, found)
            missing = [i for i in missing if i not in found]
            if not missing:
                break
            for servo_id in missing:
                self._failed(servo_id, result)
            self.last_failure = self._kind(result)
        self._unanswered |= bool(missing) and self._port.starved
        return found

    def wire_ns(self, servos: int, size: int) -> int:
        """How long `sync_read` of so many bytes of so many servos takes by its bytes alone."""
        count = _ASKING + servos + servos * (_ANSWERING + size)
        return count * BITS_A_BYTE * NS_PER_S // self._port.getBaudRate()

    def _attempt(self, ids: list[int], start: int, size: int, found: dict[int, bytes]) -> int:
        result = int(self._packets.syncReadTx(self._port, start, size, ids, len(ids)))
        worst = result
        asked, answered, spoiled = len(ids), set[int](), set[int]()
        while result in (scs.COMM_SUCCESS, scs.COMM_RX_CORRUPT) and asked and not self._port.starved:
            packet, result = self._packets.rxPacket(self._port)
            if result == scs.COMM_RX_CORRUPT:
                worst = result
                asked -= 1
            elif result == scs.COMM_SUCCESS and packet[scs.PKT_ID] in ids:
                servo_id = packet[scs.PKT_ID]
                asked -= servo_id not in answered
                if servo_id in answered or packet[scs.PKT_LENGTH] != size + 2:
                    worst = int(scs.COMM_RX_CORRUPT)
                    spoiled.add(servo_id)  # of two answers nobody knows which is this servo's
                else:
                    found[servo_id] = bytes(packet[5 : 5 + size])
                    self._note_alarms(servo_id, packet[scs.PKT_ERROR])
                answered.add(servo_id)
        for servo_id in spoiled:
            found.pop(servo_id, None)
        if self._port.pending:
            # More came than was asked for: an answer from before is among these, so none can be trusted.
            self.errors["late"] += 1
            for servo_id in ids:
                found.pop(servo_id, None)
            return int(scs.COMM_RX_CORRUPT)
        return worst if worst != scs.COMM_SUCCESS else int(result)

    def _settle(self) -> None:
        """After a failure, let stragglers arrive before anything is asked again."""
        if self._port.starved:
            self._unanswered = True
        else:
            with self._transaction():
                self._port.drain()

    def _let_late_ones_pass(self) -> None:
        """Wait until no answer is underway: it says whose it is, not of which register.

        Asked twice, a servo that was late answers twice, the second time as long after the first as the
        questions were apart: a timeout. Silence of one is not enough.
        """
        if self._unanswered:
            for _ in range(2):
                with self._transaction():
                    self._port.drain()
            self._unanswered = False

    def _failed(self, servo_id: int, result: int) -> None:
        self.errors[f"{self.name(servo_id)}.{self._kind(result)}"] += 1

    @staticmethod
    def _kind(result: int) -> FaultKind:
        return FaultKind.BAD_PACKET if result == scs.COMM_RX_CORRUPT else FaultKind.NO_REPLY

    def _error(self, servo_id: int, result: int, doing: str) -> DeviceError:
        detail = f"{self.name(servo_id)} (servo {servo_id}), {doing}, {1 + self._num_retry} attempts"
        return DeviceError(self.device, self._kind(result), self.where, detail, self.last_good_ns)

    def _note_alarms(self, servo_id: int, error: int) -> None:
        self._witness = servo_id
        self.alarms.note(servo_id, self.name(servo_id), error)

    def _echoes(self) -> bool:
        """Whether the line gives back what is sent, which looks like an answer to all but every question."""
        with self._transaction():
            self._port.drain()
            self._port.clearPort()
            self._port.setPacketTimeout(0)
            self._port.writePort(list(_ASKS_NOBODY))
            heard = self._port.readPort(len(_ASKS_NOBODY))
            self._port.drain()
        return heard == _ASKS_NOBODY

    def check_models(self, ids: Iterable[int], model: int) -> None:
        """See that every servo is there and of the right kind.

        Raises:
            DeviceError: ``no_reply``, ``bad_packet`` or ``wrong_model``, with the ids and joints concerned.
        """
        told = {servo_id: self._model_of(servo_id) for servo_id in ids}
        found = {servo_id: model for servo_id, (model, _) in told.items()}
        if any(m != model for m in found.values()) and self._echoes():
            detail = "what is sent comes back as it is: the adapter echoes, or its lines are joined"
            raise DeviceError(self.device, FaultKind.NO_REPLY, self.where, detail)
        if spoiled := [f"{i} ({self.name(i)})" for i, (_, r) in told.items() if r == scs.COMM_RX_CORRUPT]:
            detail = (
                f"what servo {', '.join(spoiled)} answers is spoiled: do two have one id, is a cable loose?"
            )
            raise DeviceError(self.device, FaultKind.BAD_PACKET, self.where, detail)
        silent = [f"{i} ({self.name(i)})" for i, m in found.items() if m is None]
        if silent:
            heard = ", ".join(str(i) for i, m in found.items() if m is not None) or "none"
            detail = f"no answer from servo {', '.join(silent)}; answering: {heard}"
            if heard == "none":
                speed = self._port.getBaudRate()
                detail += f" (is the arm powered, is this its port, and is its speed {speed} bit/s?)"
            raise DeviceError(self.device, FaultKind.NO_REPLY, self.where, detail)
        wrong = [f"{i} ({self.name(i)}) says {m}" for i, m in found.items() if m != model]
        if wrong:
            detail = f"{MODEL_NUMBER.name} should be {model}: servo {', '.join(wrong)}"
            raise DeviceError(self.device, FaultKind.WRONG_MODEL, self.where, detail)
