"""The shape of what a run shares: its facts, and the layouts of its rings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.ring import Layout, Ring, Sample
from runtime.tick import tick_layout

STATUS_BYTES, COMMAND_BYTES, ANSWER_BYTES = 262_144, 8_192, 2_048
_TICK_S, _PICTURES, _COMMANDS, _ANSWERS = 8, 4, 64, 256
_MOST = 2**63


@dataclass(frozen=True, slots=True)
class SharedCamera:
    """What is constant about a camera of a run.

    Attributes:
        depth_scale_m: metres of one step of its depth pictures, where it has any.
        intrinsics: ``fx``, ``fy``, ``cx``, ``cy`` in pixels.
        pose: ``[4, 4]`` its optical frame in the arm's base frame, where that is known and constant.
    """

    width: int
    height: int
    depth: bool = False
    depth_scale_m: float | None = None
    intrinsics: Mapping[str, float] | None = None
    pose: Sequence[Sequence[float]] | None = None

    def layout(self) -> Layout:
        """Of the ring of its pictures; ``masked``: ``mask`` (0, 1) is no more than half a second older."""
        size = (self.height, self.width)
        depth = {"depth": (size, "<u2")} if self.depth else {}
        return {"color": ((*size, 3), "|u1"), **depth, "mask": (size, "|u1"), "masked": ((), "|u1")}


@dataclass(frozen=True, slots=True)
class SharedFacts:
    """What is constant about a run; `ranges_rad` are ``[D, 2]``, a gripper's 0 to 1.

    Attributes:
        units: ``rad`` or ``0..1``, by joint.
        grippers: their indices among the joints.
        stepped: whether its stamps are of simulated time, and compare with nobody else's.
    """

    mode: str
    rate_hz: float
    joints: Sequence[str]
    units: Sequence[str]
    ranges_rad: Sequence[Sequence[float]]
    grippers: Sequence[int] = ()
    force_channels: int = 0
    stepped: bool = False
    cameras: Mapping[str, SharedCamera] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PanelCommand:
    """What somebody asks the run for; `args` are as they came, and nobody has looked at them.

    Attributes:
        seen: the number of the newest stop that he knew of (`dexrun.stopping`), if he has said so.
    """

    id: int
    name: str
    args: Mapping[str, Any]
    client: str
    stamp_ns: int
    seen: int | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any], stamp_ns: int) -> PanelCommand:
        """From what was sent.

        Raises:
            ValueError: it is no command.
        """
        number, name = said.get("id"), said.get("name")
        args, client, seen = said.get("args", {}), said.get("client", ""), said.get("seen")
        known = all(map(isinstance, (number, name, args, client), (int, str, dict, str)))
        known = known and (seen is None or type(seen) is int)
        if not known or not 0 < number < _MOST:  # type: ignore[operator]
            raise ValueError(f"a command of {sorted(said)}; it has id, name, args and client")
        return cls(number, name, args, client, stamp_ns, seen)  # type: ignore[arg-type]


def _text_layout(size: int) -> Layout:
    return {"text": ((size,), "|u1"), "length": ((), "<i8")}


def put_text(ring: Ring, stamp_ns: int, said: Mapping[str, Any]) -> None:
    """Publish an object as JSON in a ring of texts.

    Raises:
        ValueError: it is longer than the ring's slots, or no JSON.
    """
    text = json.dumps(said, ensure_ascii=False, allow_nan=False).encode(errors="replace")
    room = ring.layout["text"][0][0]
    if len(text) > room:
        raise ValueError(f"{len(text)} bytes; at most {room} are shared")
    with ring.write(stamp_ns) as slot:
        slot["text"][: len(text)] = np.frombuffer(text, np.uint8)
        slot["length"][...] = len(text)


def text_of(sample: Sample) -> dict[str, Any]:
    """The object that `put_text` put there.

    Raises:
        ValueError: it is none.
    """
    try:
        said = json.loads(sample["text"][: int(sample["length"])].tobytes())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(said, dict):
        raise ValueError("not an object")
    return said


_LOOKS: Layout = {"looked": ((), "<i8")}
_HEARTBEAT: Layout = {"pages": ((), "<i8"), "beat_ns": ((), "<i8")}


def shared_layouts(facts: SharedFacts) -> dict[str, tuple[Layout, int]]:
    """Of every ring, by its name in ``panel.json``, with its slots."""
    ticks = tick_layout(len(facts.joints), facts.force_channels), max(64, round(_TICK_S * facts.rate_hz))
    cameras = {f"camera.{name}": (camera.layout(), _PICTURES) for name, camera in facts.cameras.items()}
    return {
        "status": (_text_layout(STATUS_BYTES), 3),
        "ticks": ticks,
        "commands": (_text_layout(COMMAND_BYTES), _COMMANDS),
        "answers": (_text_layout(ANSWER_BYTES), _ANSWERS),
        "heartbeat": (_HEARTBEAT, 4),
        "looks": (_LOOKS, 4),
        "looks.pictures": (_LOOKS, 4),
        **cameras,
    }
