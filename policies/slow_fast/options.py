"""Options of a policy of two halves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from runtime.blends import SplicingOptions
from runtime.part_context import CameraNeed
from runtime.parts import PolicyTable

_SPLICED = (*SplicingOptions.model_fields, "stop_on_implausible")
"""Of either half's table, what ``[policy]`` itself says."""
_PLAYED = ("rate_hz", "discrete")
"""How rows are played: those of the fast half are."""
_BESIDE = ("hung_s", "other_instructions", "unseen_s")
"""Of a slow half that is not waited for."""


class SlowFastOptions(PolicyTable):
    """``[policy] type = "slow_fast"``: a slow model thinks at its own pace, a fast policy acts on its newest
    thought.

    Attributes:
        slow: the policy that thinks: one whose answers carry a latent. It has a thread of its own; with
            ``worker = "process"`` it thinks in a process of its own, behind a server on that machine.
        fast: the policy that acts, asked for every chunk; here, in a process or behind a server likewise.
        synchronous: the slow one is asked within every answer, which waits for it: the way without two
            halves, for comparison.
        max_age_s: on an older thought nothing is done: the arm holds.
        hung_s: a slow half that is at one thought for longer is said to hang.
        other_instructions: whether the newest thought counts although it is of another instruction, or of an
            attempt before, until there is one of the present; otherwise the arm waits for it.
        unseen_s: an attempt in which the slow half has not seen what is asked for, for so long and in more
            than one look, has failed: where the arm hides the object it would wait for ever.
        masks: where the masks that the fast policy looks at come from: ``pointed`` are made in the fresh
            depth picture, around what the slow half points at; ``tracked`` as without a slow half.
        rate_hz, discrete: of its rows; if they are not given, the fast policy's own.
        simulated_latency_s: on a stepped clock, how long an answer takes; if it is not given the fast
            policy's own, and where it is `synchronous` the slow one's besides.
    """

    not_served: ClassVar[str] = (
        "it waits for thoughts, which no protocol can say: serve its slow half, whose client is then "
        "policy.slow, or its fast half, whose client is policy.fast"
    )

    type: Literal["slow_fast"] = "slow_fast"
    slow: PolicyTable
    fast: PolicyTable
    synchronous: bool = False
    max_age_s: float = Field(default=10.0, gt=0, le=3600)
    hung_s: float = Field(default=20.0, gt=0, le=3600)
    other_instructions: bool = False
    unseen_s: float = Field(default=3.0, gt=0, le=3600)
    masks: Literal["pointed", "tracked"] = "pointed"

    @model_validator(mode="after")
    def _of_its_halves(self) -> SlowFastOptions:
        for name, half in (("slow", self.slow), ("fast", self.fast)):
            if isinstance(half, SlowFastOptions):
                raise ValueError(f"{name}.type = 'slow_fast': a half is one policy")
            if given := _chosen(half, _SPLICED):
                raise ValueError(f"{name}.{given[0]} has no effect: [policy] says it of both halves")
        if self.synchronous and (given := _chosen(self, _BESIDE)):
            raise ValueError(f"{given[0]} has no effect with synchronous = true: each answer has a thought")
        if "simulated_latency_s" not in self.model_fields_set:
            slow_s = self.slow.simulated_latency_s if self.synchronous else 0.0
            object.__setattr__(self, "simulated_latency_s", self.fast.simulated_latency_s + slow_s)
        for key in _PLAYED:
            if key not in self.model_fields_set:
                object.__setattr__(self, key, getattr(self.fast, key))
        return self

    def check_packages(self) -> None:
        self.slow.check_packages()
        self.fast.check_packages()

    def needs_cameras(self) -> Sequence[CameraNeed]:
        fast = [
            replace(need, mask=need.mask and self.masks == "tracked") for need in self.fast.needs_cameras()
        ]
        found = {"slow": self.slow.needs_cameras(), "fast": fast}
        return [replace(need, key=f"{half}.{need.key}") for half, needs in found.items() for need in needs]

    def trained_arm(self) -> str:
        try:
            return self.fast.trained_arm()
        except ValueError as error:
            raise ValueError(f"fast.{error}") from None

    def poses(self) -> Mapping[str, Sequence[float]]:
        return {f"fast.{key}": pose for key, pose in self.fast.poses().items()}

    def by_joint(self) -> Mapping[str, Iterable[str]]:
        halves = {"slow": self.slow, "fast": self.fast}
        return {
            f"{name}.{key}": joints
            for name, half in halves.items()
            for key, joints in half.by_joint().items()
        }

    @property
    def untrained(self) -> bool:
        return self.fast.untrained


def _chosen(table: PolicyTable, keys: Iterable[str]) -> list[str]:
    """Of `keys`, those that are not as they are anyway; a table that was written down gives all of them."""
    fields = type(table).model_fields
    return [key for key in keys if getattr(table, key) != fields[key].get_default(call_default_factory=True)]
