"""The writer's role: masks into files, and files into the annotation beside the recording."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexrun.annotation.commands import Commands
from dexrun.annotation.locating import located
from dexrun.annotation.looking import Survey
from dexrun.annotation.mask_file import MaskFileError, MaskWriter, read_masks
from dexrun.annotation.masks import kept
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.roles import WAIT_NS, LeaseInbox
from dexrun.annotation.steps import said
from runtime.frame_channel import FrameMessage, FrameReceiver
from runtime.recording.annotations import Anchor, FrameMask, annotation_path, write_annotation
from runtime.recording.bounds import one_line
from runtime.recording.reader import Episode


@dataclass
class _Keeping:
    """The masks of one lease, on their way into a file."""

    frames: list[int]
    writer: MaskWriter
    done: int = 0


class WriterRole:
    """Writes what trackers send. A stretch's masks are there when all of them are; so is an annotation."""

    def __init__(self, options: AnnotateOptions, commands: Commands, inbox: FrameReceiver) -> None:
        self._options = options
        self._commands = commands
        self._inbox = LeaseInbox(inbox)
        self._leases: dict[int, _Keeping] = {}

    def handle(self, command: Mapping[str, Any]) -> None:
        """See `Role`: ``keep``, ``assemble``, ``drop``."""
        match command["do"]:
            case "keep":
                self._inbox.told_of(command["lease"])
                with self._telling(lease=command["lease"]):
                    writer = MaskWriter(Path(command["path"]))
                    self._leases[command["lease"]] = _Keeping(list(range(*command["frames"])), writer)
            case "assemble":
                with self._telling(job=command["job"]):
                    self._assemble(command)
            case "drop":
                self._inbox.told_of(command["lease"])
                self._drop(command["lease"])

    @contextlib.contextmanager
    def _telling(self, **which: int) -> Iterator[None]:
        """Whatever goes wrong with one episode costs it alone."""
        try:
            yield
        except Exception as error:  # a full disk, a damaged picture, a mask that is none
            self._drop(which.get("lease", -1))
            self._commands.answer(**which, refused=one_line(error))

    def _drop(self, lease: int) -> None:
        if (keeping := self._leases.pop(lease, None)) is not None:
            keeping.writer.discard()

    def step(self) -> bool:
        """Take the next mask."""
        if not self._leases:
            return False
        message = self._inbox.receive(WAIT_NS)
        if message is not None and message.about.get("lease") in self._leases:
            lease = message.about["lease"]
            with self._telling(lease=lease):
                self._keep(lease, message)
        return not self._inbox.waits

    def _keep(self, lease: int, message: FrameMessage) -> None:
        keeping, about = self._leases[lease], message.about
        frame = keeping.frames[keeping.done]
        if (about["n"], about["frame"]) != (keeping.done, frame):
            self._drop(lease)
            lost = f"mask {about['n']} of frame {about['frame']} came instead of frame {frame}'s"
            self._commands.answer(lease=lease, lost=lost)
            return
        keeping.writer.add(kept(frame, message.data, about["confidence"], about["anchor"]))
        keeping.done += 1
        if keeping.done == len(keeping.frames):
            del self._leases[lease]
            keeping.writer.finish()
            self._commands.answer(lease=lease, kept=keeping.done)

    def _assemble(self, command: Mapping[str, Any]) -> None:
        """Put the files of all stretches together; one that is damaged or gone is told, to be made again."""
        path, about = Path(command["path"]), Survey.of(command["survey"])
        masks: dict[int, FrameMask] = {}
        for name in command["files"]:
            try:
                masks.update({mask.frame: mask for mask in read_masks(Path(name))})
            except (MaskFileError, OSError):
                with contextlib.suppress(OSError):
                    Path(name).unlink(missing_ok=True)
                self._commands.answer(job=command["job"], damaged=name)
                return
        anchors = [Anchor.of(each) for each in command["anchors"]]
        with Episode(path, afterwards=False) as episode:
            sure = {frame: mask.confidence for frame, mask in masks.items()}
            found = said(command["task"], episode, about, anchors, sure, self._options)
            ordered = located(episode, about.camera, [masks[frame] for frame in range(about.frames)])
            write_annotation(annotation_path(path, about.camera), episode, found, self._heard(ordered))
        self._commands.answer(job=command["job"], done=about.frames, low=list(found.low))

    def _heard(self, masks: Iterable[FrameMask]) -> Iterator[FrameMask]:
        """The same, as long as there is somebody for whom it is done: nothing is put in another's place."""
        for mask in masks:
            if not self._commands.hear():
                raise BrokenPipeError("whoever asked for it has gone")
            yield mask

    def close(self) -> None:
        """See `Role`."""
        for keeping in self._leases.values():
            keeping.writer.discard()
        self._inbox.close()
