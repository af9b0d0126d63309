"""An arm of STS3215 servos, as the runtime sees it: states in, targets out, one thread for the bus."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from drivers.feetech import registers as reg
from drivers.feetech.alarms import AlarmLog
from drivers.feetech.bus import FeetechBus
from drivers.feetech.calibration import Calibration, JointMap, Ticks, TurnCounter
from drivers.feetech.goals import GoalWriter
from drivers.feetech.guidance import Guidance
from drivers.feetech.options import FeetechOptions
from drivers.feetech.schedule import ReadTimes
from drivers.feetech.setup import check_calibration, configure, connect, hold_here, release
from drivers.feetech.witness import HeldRegisters, ServoWatch
from drivers.serial_port import Adapter, Lister, adapter_at, find_ports, list_ports
from runtime.beat import Beat
from runtime.clock import NS_PER_S, Clock, Signal
from runtime.latest import Latest
from runtime.messages import DeviceError, FaultKind
from runtime.ring import Mailbox, Ring, capacity_for


class _Targets(Mailbox):
    """A mailbox that wakes the bus thread."""

    def __init__(self, joints: int, posted: Signal) -> None:
        super().__init__({"position": ((joints,), "<f8")})
        self._posted = posted

    def post(self, stamp_ns: int, **fields: Any) -> None:
        super().post(stamp_ns, **fields)
        self._posted.set()


class FeetechArm:
    """`runtime.interfaces.ArmDriver` for a Feetech bus.

    Args:
        name: in the configuration.
        joints: which servos there are, and what their ticks mean.
        lister: where to look ports up; for tests.
        others: the calibrations of the other arms, by what they are called.
        beat: when the control loop ticks, once it does (`runtime.part_context.DeviceContext`).

    Attributes:
        states: fields ``position``, ``velocity``, ``load`` (fraction of stall torque), float64 ``[D]``,
            stamped at the middle of the transaction.
        targets: field ``position``, float64 ``[D]``. A follower writes it the moment it is posted. A leader
            writes no goals.
        guide: the same field; a leader's servos bring it there, and hold it, until there is NaN in it.
        health: fields ``voltage_v``, ``temperature_c``, ``current_a``, float64 ``[D]``, and ``alarms``, the
            servos' error bytes, int64 ``[D]``.
        sent: field ``goal``, int64 ``[D]``: ticks as written to the servos, stamped when they were, or as a
            servo has them that did not get the packet before; field ``position``, float64 ``[D]``: the same
            in the robot's units, NaN where nothing was written; field ``target_ns``, int64 ``[D]``: the stamp
            of the target that they were made of.
    """

    def __init__(
        self,
        name: str,
        config: FeetechOptions,
        joints: JointMap,
        clock: Clock,
        lister: Lister = list_ports,
        others: Mapping[str, Calibration] | None = None,
        beat: Latest[Beat] | None = None,
    ) -> None:
        self.name = name
        self._config = config
        self._joints = joints
        self._clock = clock
        self._lister = lister
        size = (len(joints.names),)
        rate = config.state_rate_hz
        layout = dict.fromkeys(("position", "velocity", "load"), (size, "<f8"))
        self.states = Ring(layout, capacity_for(rate, 1.0))
        self._posted = clock.signal()
        self.targets, self.guide = (_Targets(size[0], self._posted) for _ in range(2))
        health = dict.fromkeys(("voltage_v", "temperature_c", "current_a"), (size, "<f8"))
        self.health = Ring({**health, "alarms": (size, "<i8")}, 8)
        self.sent = Ring({"goal": (size, "<i8"), "position": (size, "<f8"), "target_ns": (size, "<i8")}, 64)
        self._names = dict(zip(joints.ids, joints.names, strict=True))
        self._turns = TurnCounter((joints.low + joints.high) / 2)
        self._guidance = Guidance(joints, self._turns)
        self._adapter = Adapter(config.serial_number)
        self._others = dict(others or {})
        ticks = Latest[Beat]() if beat is None else beat
        self._times = ReadTimes(rate, ticks, goals=config.role == "follower")
        self._counts: Counter[str] = Counter()
        self._alarms = AlarmLog(name)
        self._watch = ServoWatch(torque=config.role == "follower")
        self._writer = GoalWriter(
            name, config, joints, self._turns, self._watch, self._times, clock, self.targets, self.sent
        )
        self._bus: FeetechBus | None = None
        self._last_good_ns: int | None = None
        self._deadline_ns = 0
        self._next_health_ns = 0
        self._failing = False
        self._located = self._faulty = False
        """Whether it is known where the joints are, since the last opening."""

    # --- the Driver protocol

    def open(self) -> None:
        """Find and open the port, check every servo, prepare them; nothing moves.

        Raises:
            DeviceError: ``not_found``, ``in_use``, ``no_permission``, ``no_reply``, ``wrong_model``,
                ``wrong_calibration``, ``refused``.
        """
        self.close()
        paths = find_ports(self.name, self._config.port, self._adapter, self._lister)
        bus = self._open_one_of(paths)
        self._adapter = adapter_at(bus.where, self._lister) or self._adapter
        self._bus = bus
        self._writer.forget()
        self.guide.take()  # what was asked before the gap is not obeyed after it
        self._guidance.forget()
        now = self._clock.now_ns()
        self._times.begin(now)
        self._next_health_ns = now
        self._deadline_ns = now + round(self._config.give_up_s * NS_PER_S)
        self._failing = self._located = self._faulty = False

    def _open_one_of(self, paths: Sequence[str]) -> FeetechBus:
        """The first bus on which this arm is: several adapters may have one serial number."""
        first: DeviceError | None = None
        for path in paths:
            try:
                return self._open_at(path, alone=len(paths) == 1)
            except DeviceError as error:
                first = first or error
        if first is None:
            raise DeviceError(self.name, FaultKind.NOT_FOUND, self._config.port, "no such port")
        raise first

    def _open_at(self, path: str, alone: bool) -> FeetechBus:
        bus = connect(self.name, self._config, self._names, self._clock, path=path, alarms=self._alarms)
        bus.last_good_ns = self._last_good_ns
        try:
            self._watch.begin(bus, self._prepare(bus, self._config.write_calibration and alone))
        except BaseException:
            self._keep_counts(bus)
            bus.close()
            raise
        return bus

    def _prepare(self, bus: FeetechBus, may_write: bool) -> HeldRegisters:
        ids = self._joints.ids
        bus.check_models(ids, reg.MODEL_STS3215)
        check_calibration(bus, self._joints, may_write, self._others)
        if self._config.role == "leader":
            return release(bus, ids)
        return configure(bus, self._joints, self._config)

    def poll(self) -> bool:
        """Write the newest target when there is one; read the state when it is due; whether that was done.

        Raises:
            DeviceError: ``gone``, ``no_reply``, ``torque_lost``, ``restarted``.
        """
        try:
            return self._cycle()
        except DeviceError:
            self._faulty = True
            raise

    def _cycle(self) -> bool:
        bus = self._bus
        if bus is None:
            raise DeviceError(self.name, FaultKind.GONE, self._config.port, "not open", self._last_good_ns)
        wait = self._times.due_ns - self._clock.now_ns()
        if wait > 0:
            self._posted.wait(wait)
        if self._located:
            self._obey(bus)
        now = self._clock.now_ns()
        if now < self._times.due_ns:
            return False
        try:
            return self._read_state(bus, now)
        finally:
            _, size = self._block(self._clock.now_ns(), before_goal=True)
            self._times.plan(now, bus.wire_ns(len(self._joints.ids), size))

    def _block(self, now_ns: int, *, before_goal: bool) -> tuple[int, int]:
        """Start and length of what is read next."""
        if now_ns >= self._next_health_ns:
            return reg.HEALTH_BLOCK
        return reg.DRIVE_BLOCK if before_goal and self._writer.trusts else reg.STATE_BLOCK

    def close(self) -> None:
        """Let go of the port. The arm holds where it is, unless `torque_off_on_close`.

        After a fault it holds in any case: the port is closed to be opened again, and half an arm that lets
        go because one servo was silent would fall.
        """
        bus, self._bus = self._bus, None
        if bus is None:
            return
        with contextlib.suppress(DeviceError):  # it may be closed because it is gone
            self._rest(bus)
        self._keep_counts(bus)
        bus.close()

    @property
    def calibration(self) -> Mapping[str, Any]:
        """By joint, as LeRobot's calibration files have it, and which angle the middle of its range is."""
        return self._joints.described()

    def statistics(self) -> Mapping[str, int]:
        """Failures so far: ``late``, ``bad_target``, ``old_target``, ``replaced_target``, ``<joint>.<kind>``.

        The kinds: ``no_reply``, ``bad_packet``, ``over_the_end``, ``lost_goal``, ``alarm_<what>``.
        """
        totals = {**self._counts, **self._writer.statistics(), **self._alarms.counts}
        if self._bus is not None:
            for key, count in self._bus.errors.items():
                totals[key] = totals.get(key, 0) + count
        return totals

    # --- inside

    def _keep_counts(self, bus: FeetechBus) -> None:
        self._counts.update(bus.errors)
        bus.errors.clear()

    def _rest(self, bus: FeetechBus) -> None:
        if self._config.role == "leader":
            self._guidance.release(bus)
            return
        if self._config.torque_off_on_close and not self._faulty:
            bus.sync_write(reg.TORQUE_ENABLE, dict.fromkeys(self._joints.ids, 0))
        else:
            hold_here(bus, self._joints.ids, self._clock)

    def _obey(self, bus: FeetechBus) -> None:
        if self._config.role == "follower":
            # A lost packet is asked for again; one that is silent anyway does not hold up the others' goals.
            self._writer.write(bus, 0 if self._failing else -1)
        elif self._guidance.follow(bus, self.guide.take(), self._clock.now_ns()):
            self._watch.begin(bus, HeldRegisters.take(bus, self._joints.ids))

    def _read_state(self, bus: FeetechBus, before_ns: int) -> bool:
        start, size = block = self._block(before_ns, before_goal=self._times.before_goal)
        healthy = block == reg.HEALTH_BLOCK
        alarms = dict(bus.alarms.standing)
        # A servo that was silent a moment ago is asked once, so that the others are not held up for long.
        answers = bus.sync_read(self._joints.ids, start, size, 0 if self._failing else -1)
        now = self._clock.now_ns()
        if bus.alarms.standing != alarms:
            self._next_health_ns = now  # what raises an alarm may cut torque: look at once
        silent = [n for i, n in zip(self._joints.ids, self._joints.names, strict=True) if i not in answers]
        if self._failing:
            self._next_health_ns = now  # a servo that restarts is silent for a moment
        self._failing = bool(silent)
        if silent:
            if now >= self._deadline_ns:
                how = "silent" if bus.last_failure is FaultKind.NO_REPLY else "silent or not understood"
                detail = f"no whole state for {self._config.give_up_s:g} s; {how}: {', '.join(silent)}"
                raise DeviceError(self.name, bus.last_failure, bus.where, detail, self._last_good_ns)
            return False
        if healthy:
            self._watch.check(bus, answers, start)
        else:
            self._times.took(now, bus.wire_ns(len(self._joints.ids), size))
        stamp = (before_ns + now) // 2
        self._located = True
        self._last_good_ns = bus.last_good_ns = stamp
        self._deadline_ns = now + round(self._config.give_up_s * NS_PER_S)
        self._publish(answers, start, stamp)
        if self._times.before_goal:
            self._writer.saw(bus, answers, start, before_ns)
        if healthy:
            self._next_health_ns = now + round(self._config.health_period_s * NS_PER_S)
            self._publish_health(bus, answers, start, stamp)
        return True

    def _column(self, answers: Mapping[int, bytes], start: int, register: reg.Register) -> Ticks:
        at = register.address - start
        return np.array([register.decode(answers[i][at : at + register.size]) for i in self._joints.ids])

    def _publish(self, answers: Mapping[int, bytes], start: int, stamp_ns: int) -> None:
        joints = self._joints
        ticks = self._turns.update(self._column(answers, start, reg.PRESENT_POSITION))
        self.states.push(
            stamp_ns,
            position=joints.to_units(ticks),
            velocity=joints.rates(self._column(answers, start, reg.PRESENT_VELOCITY)),
            load=joints.signs() * self._column(answers, start, reg.PRESENT_LOAD) * reg.LOAD_FRACTION,
        )

    def _publish_health(
        self, bus: FeetechBus, answers: Mapping[int, bytes], start: int, stamp_ns: int
    ) -> None:
        self.health.push(
            stamp_ns,
            voltage_v=self._column(answers, start, reg.PRESENT_VOLTAGE) * reg.VOLTAGE_V,
            temperature_c=self._column(answers, start, reg.PRESENT_TEMPERATURE),
            current_a=self._column(answers, start, reg.PRESENT_CURRENT) * reg.CURRENT_A,
            alarms=[bus.alarms.standing.get(i, 0) for i in self._joints.ids],
        )
