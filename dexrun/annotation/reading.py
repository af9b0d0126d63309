"""The reader's role: recordings' numbers at once, their pictures as fast as they are taken."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.annotation.commands import Commands
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.roles import WAIT_NS, Senders
from dexrun.annotation.surveying import survey_file
from runtime.frame_channel import FrameMessage, FrameSender
from runtime.recording.bounds import one_line
from runtime.recording.reader import Episode


@dataclass
class _Sending:
    """Frames of one lease on their way."""

    lease: int
    path: Path
    sender: FrameSender
    rest: Iterator[tuple[str, int]]
    sent: int = 0
    next: FrameMessage | None = None


class ReaderRole:
    """Reads recordings: their numbers at once, their pictures as fast as they are taken."""

    def __init__(self, options: AnnotateOptions, commands: Commands, senders: Senders) -> None:
        self._options = options
        self._commands = commands
        self._senders = senders
        self._leases: dict[int, _Sending] = {}
        self._open: dict[Path, Episode] = {}

    def handle(self, command: Mapping[str, Any]) -> None:
        """See `Role`: ``survey``, ``frames``, ``drop``."""
        match command["do"]:
            case "survey":
                self._survey(command["job"], Path(command["path"]), command["again"])
            case "frames":
                self._begin(command)
            case "drop":
                self._leases.pop(command["lease"], None)

    def _survey(self, job: int, path: Path, again: bool) -> None:
        try:
            found = survey_file(path, self._options, again=again)
        except Exception as error:  # whatever is wrong with one episode is no reason to end
            self._commands.answer(job=job, refused=one_line(error))
            return
        there, about = found.there, found.about.as_json()
        known = None if there is None else [[each.as_json() for each in there.anchors], list(there.low)]
        same = found.same(self._options)
        self._commands.answer(job=job, task=found.ref.task, survey=about, known=known, same=same)

    def _begin(self, command: Mapping[str, Any]) -> None:
        wanted = ((camera, frame) for camera, *frames in command["frames"] for frame in range(*frames))
        sending = _Sending(command["lease"], Path(command["path"]), self._senders(command["to"]), wanted)
        self._leases[sending.lease] = sending

    def step(self) -> bool:
        """Send the next picture of every lease for which there is room."""
        moved = False
        for sending in list(self._leases.values()):
            try:
                moved = self._send(sending) or moved
            except Exception as error:  # a damaged frame, one larger than the first: this episode's alone
                del self._leases[sending.lease]
                self._commands.answer(lease=sending.lease, refused=one_line(error))
        if self._leases and not moved:
            next(iter(self._leases.values())).sender.settle(WAIT_NS)
        self._close_files({each.path for each in self._leases.values()})
        return bool(self._leases)

    def _send(self, sending: _Sending) -> bool:
        if sending.next is None:
            wanted = next(sending.rest, None)
            if wanted is None:
                if sending.sender.settle(0):
                    del self._leases[sending.lease]
                return sending.lease not in self._leases
            camera, frame = wanted
            image = np.ascontiguousarray(self._episode(sending.path).color(camera, frame))
            about = {"lease": sending.lease, "n": sending.sent, "frame": frame}
            sending.next = FrameMessage(about, image)
        if not sending.sender.send(sending.next, 0):
            return False
        sending.sent, sending.next = sending.sent + 1, None
        return True

    def _episode(self, path: Path) -> Episode:
        if path not in self._open:
            self._open[path] = Episode(path, afterwards=False)
        return self._open[path]

    def _close_files(self, wanted: Collection[Path] = ()) -> None:
        for path in self._open.keys() - wanted:
            self._open.pop(path).close()

    def close(self) -> None:
        """See `Role`."""
        self._close_files()
