"""A fast policy that acts on the newest thought of a slow one, which never makes it wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from loguru import logger

from policies.slow_fast.masks import PointedMasks
from policies.slow_fast.options import SlowFastOptions
from policies.slow_fast.thinking import AskedThought, SlowReport, Thinker
from runtime.clock import NS_PER_S, Clock
from runtime.inference import NotReadyError
from runtime.interfaces import NoAnswerError, Policy, PolicyError, PolicySpec, ServedPolicy
from runtime.messages import Observation, PolicyAnswer, PolicyStatus, Thought

_KEPT_AGES = 4096
_PAUSE_NS = NS_PER_S
"""An attempt that is asked about no more often is not being followed: something holds the arm."""
_LOOKS = 2
"""One picture in which it is not seen is none."""


class SlowFastPolicy:
    """`runtime.interfaces.Policy` of two halves; it is followed like its fast one.

    Every observation that it is asked about goes to the slow half, whose mailbox keeps the newest; the fast
    half is given the newest thought of this attempt and this instruction.

    Args:
        fast: acts. thinker: asks the slow half.
        clock: says how long the slow half has been at it.
        pointed: makes the masks that the fast half looks at; ``None``: they are in the observation.
    """

    def __init__(
        self,
        fast: Policy,
        thinker: Thinker,
        options: SlowFastOptions,
        clock: Clock,
        pointed: PointedMasks | None = None,
    ) -> None:
        self._fast = fast
        self._thinker = thinker
        self._options = options
        self._clock = clock
        self._pointed = pointed
        self._served = fast if isinstance(fast, ServedPolicy) else None
        self._attempt = 0
        self._counts: Counter[str] = Counter()
        self._ages_s = np.zeros(_KEPT_AGES)
        self._acted, self._oldest_s = 0, 0.0
        self._passed_over, self._hung_ns, self._taken = 0, -1, 0
        self._asked_ns, self._since_ns = -1, -1
        self.spec = self._whole_spec()

    def _whole_spec(self) -> PolicySpec:
        fast, slow = self._fast.spec, self._thinker.report.spec
        masks = () if self._pointed is not None else fast.masks
        return replace(
            fast,
            name=f"{slow.name} and {fast.name}",
            cameras=tuple(dict.fromkeys((*fast.cameras, *slow.cameras))),
            masks=tuple(dict.fromkeys((*masks, *slow.masks))),
            rate_hz=self._options.rate_hz or fast.rate_hz,
            end_effector=fast.end_effector or slow.end_effector,
            tip=fast.tip or slow.tip,
            history_steps=max(fast.history_steps, slow.history_steps),
            thought=0,
            latent=0,
        )

    def warm_up(self) -> None:
        """Both halves: a slow one that cannot think at all is known before anything moves.

        Raises:
            PolicyError: one of them cannot be warmed up; or the fast one wants a larger latent.
        """
        self._fast.warm_up()
        self._thinker.begin()
        wanted, given = self._fast.spec.thought, self._thinker.report.spec.latent
        if given and wanted > given:
            names = self._thinker.report.spec.name, self._fast.spec.name
            raise PolicyError(
                f"policy.fast: {names[1]} wants {wanted} numbers of a thought; policy.slow, {names[0]}, "
                f"gives {given}"
            )
        self.spec = self._whole_spec()

    def reset(self) -> None:
        """A new attempt: what was thought in those before is of another one."""
        self._attempt += 1
        self._taken = 0
        if self._pointed is not None:
            self._pointed.reset()
        self._fast.reset()

    def infer(self, observation: Observation) -> PolicyAnswer:
        """The fast half's answer, with the slow half's words where it has none of its own.

        An attempt fails where what is asked for is not seen for ``unseen_s``: the arm may stand before it.

        Raises:
            NotReadyError: there is no thought of this instruction yet.
            NoAnswerError: the newest is older than ``max_age_s``.
            PolicyError: as the fast half; where both are synchronous, as the slow one.
        """
        if observation.trial:
            return self._tried(observation)
        if observation.stamp_ns - self._asked_ns > _PAUSE_NS:  # the arm was held, and nothing was looked at
            self._since_ns = observation.stamp_ns
        self._asked_ns = observation.stamp_ns
        self._thinker.post(AskedThought(observation, self._attempt, self._clock.now_ns()))
        report = self._thinker.report
        self._tell_if_hung(report)
        if why := self._hidden(report, observation):
            self._counts["unseen"] += 1
            return PolicyAnswer(np.zeros((0, len(observation.arm.position))), PolicyStatus.FAILED, why)
        thought = self._usable(report, observation)
        shown = replace(observation, thought=thought)
        if self._pointed is not None:
            shown, other = self._pointed.given(shown)
            if other:  # it is another object than before: what the fast half remembers is not of it
                self._fast.reset()
        answer = self._fast.infer(shown)
        self._count(thought, observation)
        self.spec = self._whole_spec()
        return answer if answer.reasoning else replace(answer, reasoning=thought.text)

    def _tried(self, observation: Observation) -> PolicyAnswer:
        """Before anything moves: each half on its own, as nothing is asked for yet."""
        report = self._thinker.report
        size = max(self._fast.spec.thought, report.spec.latent)
        blank = Thought(np.zeros(size, np.float32), observation.stamp_ns)
        masks = {} if self._pointed is None else self._pointed.everything(observation)
        try:
            return self._fast.infer(replace(observation, thought=blank, masks={**observation.masks, **masks}))
        except NoAnswerError as error:
            logger.debug("{}, shown no object: {}", self._fast.spec.name, error)
            return PolicyAnswer(np.asarray(observation.arm.position, np.float64)[None])

    # --- the newest thought

    def _hidden(self, report: SlowReport, observation: Observation) -> str:
        """Why the attempt has failed: what is asked for was never seen in it; empty if it is not so."""
        unseen, newest = report.unseen, report.newest
        if unseen is None or unseen.looks < _LOOKS or self._options.synchronous:
            return ""
        present = (self._attempt, observation.instruction)
        if (unseen.attempt, unseen.instruction) != present:
            return ""
        if newest is not None and (newest.attempt, newest.instruction) == present:
            return ""
        passed_s = (observation.stamp_ns - max(unseen.since_ns, self._since_ns)) / NS_PER_S
        if passed_s <= self._options.unseen_s:
            return ""
        return f"not seen for {passed_s:.1f} s (policy.unseen_s), the arm may hide it: {report.last_error}"

    def _usable(self, report: SlowReport, observation: Observation) -> Thought:
        thought, options = report.newest, self._options
        if thought is None:
            raise NotReadyError(f"no thought yet of {observation.instruction!r}{_why(report)}")
        mine = thought.attempt == self._attempt and thought.instruction == observation.instruction
        if not mine:
            self._note_other(thought)
            if not options.other_instructions:
                raise NotReadyError(
                    f"no thought yet of {observation.instruction!r}; the newest is of {thought.instruction!r}"
                    f"{' in an attempt before' if thought.attempt != self._attempt else ''}{_why(report)}"
                )
        age_s = thought.age_s(observation.stamp_ns)
        if age_s > options.max_age_s:
            self._counts["too_old"] += 1
            raise NoAnswerError(
                f"the newest thought is {age_s:.1f} s old (policy.max_age_s = {options.max_age_s:g})"
                f"{_why(report)}"
            )
        return thought

    def _note_other(self, thought: Thought) -> None:
        """A thought that came too late for its instruction counts once."""
        if thought.number > self._passed_over:
            self._passed_over = thought.number
            self._counts["of_other_instructions"] += 1

    def _tell_if_hung(self, report: SlowReport) -> None:
        since_ns = report.busy_since_ns
        if since_ns is None or since_ns == self._hung_ns:
            return
        if self._clock.now_ns() - since_ns > self._options.hung_s * NS_PER_S:
            self._hung_ns = since_ns
            self._counts["hung"] += 1
            logger.warning(
                "the slow half, {}, has been at one thought for {:g} s; the newest counts until it is "
                "{:g} s old (policy.max_age_s)",
                report.spec.name,
                self._options.hung_s,
                self._options.max_age_s,
            )

    def _count(self, thought: Thought, observation: Observation) -> None:
        age_s = thought.age_s(observation.stamp_ns)
        self._ages_s[self._acted % _KEPT_AGES] = age_s
        self._acted += 1
        self._oldest_s = max(self._oldest_s, age_s)

    # --- the rest of a policy

    def statistics(self) -> Mapping[str, int]:
        """Thoughts, how old they were when they were acted on (milliseconds), and what went wrong."""
        report = self._thinker.report
        ages_s = self._ages_s[: min(self._acted, _KEPT_AGES)]
        slow = {
            "thoughts": report.thoughts,
            "failures": report.failures,
            "acted_on": self._acted,
            "age_ms_p50": round(1000 * float(np.median(ages_s))) if self._acted else 0,
            "age_ms_max": round(1000 * self._oldest_s),
            **self._counts,
            **report.own,
        }
        return {**self._fast.statistics(), **{f"slow/{kind}": count for kind, count in slow.items()}}

    @property
    def unready(self) -> str:
        """Why the fast half has to start again before it answers."""
        return "" if self._served is None else self._served.unready

    def interrupt(self) -> None:
        """End what either half waits for. From any thread."""
        self._thinker.interrupt()
        if self._served is not None:
            self._served.interrupt()

    def close(self) -> None:
        """Both halves; a slow one that hangs is left behind."""
        self._thinker.close()
        self._fast.close()


def _why(report: SlowReport) -> str:
    return f": {report.last_error}" if report.last_error else ""
