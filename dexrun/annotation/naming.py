"""The namer's role: what the object is and where, in one picture of an episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dexrun.annotation.commands import Commands
from dexrun.annotation.looking import Survey
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.roles import WAIT_NS, LeaseInbox
from dexrun.annotation.steps import named
from planner.perception.naming import ShownMoment
from runtime.frame_channel import FrameReceiver
from runtime.interfaces import PerceptionError
from runtime.messages import ColorImage
from runtime.recording.bounds import one_line


@dataclass
class _Question:
    """Pictures of one episode that are waited for."""

    lease: int
    task: str
    about: Survey
    expected: int
    pictures: list[ColorImage] = field(default_factory=list)

    def looks(self) -> list[ShownMoment]:
        """The moments with their pictures: the camera's of each, and the other one's where there is one."""
        pictures = iter(self.pictures)
        out = []
        for moment in self.about.moments:
            image = next(pictures)
            out.append(ShownMoment(image, next(pictures) if moment.wrist >= 0 else None, moment.held))
        return out


class NamerRole:
    """Says what the object is and where: asks the vision-language model, or has the scene reader's eyes."""

    def __init__(self, options: AnnotateOptions, commands: Commands, inbox: FrameReceiver) -> None:
        self._options = options
        self._commands = commands
        self._inbox = LeaseInbox(inbox)
        self._question: _Question | None = None

    def handle(self, command: Mapping[str, Any]) -> None:
        """See `Role`: ``name``, ``drop``."""
        self._inbox.told_of(command["lease"])
        if command["do"] == "name":
            about = Survey.of(command["survey"])
            expected = sum(1 + (moment.wrist >= 0) for moment in about.moments)
            self._question = _Question(command["lease"], command["task"], about, expected)
        elif command["do"] == "drop" and self._question and self._question.lease == command["lease"]:
            self._question = None

    def step(self) -> bool:
        """Take the next picture, and answer once all are there."""
        asked = self._question
        if asked is None:
            return False
        message = self._inbox.receive(WAIT_NS) if len(asked.pictures) < asked.expected else None
        if message is not None and message.about.get("lease") == asked.lease:
            asked.pictures.append(np.array(message.data))
        if len(asked.pictures) < asked.expected:
            return not self._inbox.waits
        self._question = None
        try:
            anchor = named(asked.about, asked.looks(), asked.task, self._options, self._commands.hear)
            self._commands.answer(lease=asked.lease, anchor=anchor.as_json())
        except Exception as error:
            self._commands.answer(lease=asked.lease, refused=one_line(error))
            if not isinstance(error, PerceptionError):
                raise  # after some errors of a GPU everything fails, and only a new process helps
        return True

    def close(self) -> None:
        """See `Role`."""
        self._inbox.close()
