"""The pictures of a run's cameras, and its depth cloud, for those pages that are ready for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

from loguru import logger

from dexrun.panel.link import AttachedRun
from dexrun.panel.server import messages
from dexrun.panel.server.cloud import cloud_of, has_cloud
from dexrun.panel.server.drawing import STREAMS, drawn
from dexrun.panel.server.mail import PageMail
from runtime.clock import NS_PER_S
from runtime.ring import Sample

_CLOUD_NS = NS_PER_S // 4


class SentPictures:
    """Of one run. Everything but the encoding is the event loop's.

    Attributes:
        encoded: how many pictures were.
    """

    def __init__(self, run: AttachedRun, workers: Executor) -> None:
        self._run = run
        self._workers = workers
        self._cameras: Mapping[str, Mapping[str, Any]] = run.link["cameras"]
        self._newest: dict[str, Sample] = {}
        self._made: dict[str, tuple[int, bytes]] = {}
        self._making: set[str] = set()
        self._cloud_ns = 0
        self.encoded = 0

    def look(self, pages: Collection[PageMail], now_ns: int, status: Mapping[str, Any]) -> None:
        """Send what is new to pages that are ready for it, or begin to make it.

        Raises:
            NoRunError: the run has gone.
        """
        for camera, about in self._cameras.items():
            self._look_at(camera, about, pages, now_ns, status)
        wanting = [page for page in pages if page.watched.cloud]
        if wanting and now_ns - self._cloud_ns >= _CLOUD_NS:
            self._cloud_ns = now_ns
            self._look_at_cloud(wanting)

    def _look_at(
        self,
        camera: str,
        about: Mapping[str, Any],
        pages: Collection[PageMail],
        now_ns: int,
        status: Mapping[str, Any],
    ) -> None:
        streams = [f"{camera}.{what}" for what in STREAMS if what != "depth" or about["depth"]]
        known = self._newest[camera].index if camera in self._newest else -1
        if not any(page.wants(stream, known + 1, now_ns) for page in pages for stream in streams):
            return
        newer = self._run.newest_picture(camera, known)
        if newer is None and known < 0:
            return
        picture = self._newest[camera] = newer or self._newest[camera]
        for stream in streams:
            ready = [page for page in pages if page.wants(stream, picture.index, now_ns)]
            if ready:
                self._give(stream, picture, about, ready, now_ns, status)

    def _give(
        self,
        stream: str,
        picture: Sample,
        about: Mapping[str, Any],
        ready: Sequence[PageMail],
        now_ns: int,
        status: Mapping[str, Any],
    ) -> None:
        index, message = self._made.get(stream, (-1, b""))
        if index != picture.index and stream in self._making:
            return  # they are asked again in a moment
        for page in ready:
            page.expect(stream, picture.index, now_ns)
        if index == picture.index:
            _put(stream, ready, message)
            return
        self._make(
            stream,
            partial(_picture_message, picture, stream, about, dict(status)),
            lambda made: self._was_made(stream, picture.index, ready, made),
        )

    def _was_made(self, stream: str, index: int, ready: Sequence[PageMail], message: bytes) -> None:
        self.encoded += 1
        self._made[stream] = (index, message)
        _put(stream, ready, message)

    def _look_at_cloud(self, wanting: Sequence[PageMail]) -> None:
        for camera, about in self._cameras.items():
            if has_cloud(about):
                picture = None if "cloud" in self._making else self._run.newest_picture(camera)
                if picture is not None:
                    self._make("cloud", partial(cloud_of, picture, about), partial(_put, "cloud", wanting))
                return  # of the first camera that can

    def _make(self, key: str, work: Callable[[], bytes], done: Callable[[bytes], None]) -> None:
        self._making.add(key)
        future = asyncio.get_running_loop().run_in_executor(self._workers, work)

        def ended(made: asyncio.Future[bytes]) -> None:
            self._making.discard(key)
            if made.cancelled():
                return
            if error := made.exception():
                logger.error("{} cannot be shown: {}: {}", key, type(error).__name__, error)
                return
            done(made.result())

        future.add_done_callback(ended)


def _picture_message(
    picture: Sample, stream: str, about: Mapping[str, Any], status: Mapping[str, Any]
) -> bytes:
    head = {
        "kind": "picture",
        "stream": stream,
        "stamp_ns": picture.stamp_ns,
        "width": about["width"],
        "height": about["height"],
    }
    return messages.binary(head, drawn(picture, stream, about, status))


def _put(key: str, pages: Sequence[PageMail], message: bytes) -> None:
    for page in pages:
        page.put(key, message)
