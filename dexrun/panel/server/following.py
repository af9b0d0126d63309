"""Follows whichever run is alive, and gives what is new of it to the pages that are open.

Everything here is the event loop's; pictures are encoded by worker threads, each stream once per picture
however many pages there are, and only for pages that are ready for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from loguru import logger

from dexrun.panel.link import AttachedRun, NoRunError, live_runs
from dexrun.panel.server import messages
from dexrun.panel.server.answers import Answers
from dexrun.panel.server.bodies import Bodies
from dexrun.panel.server.mail import PageMail
from dexrun.panel.server.options import PanelServerOptions
from dexrun.panel.server.pictures import SentPictures
from runtime.clock import NS_PER_S, Clock

_POLL_NS, _IDLE_NS, _SEARCH_NS = NS_PER_S // 100, NS_PER_S // 30, NS_PER_S // 2
_STATUS_NS, _BODIES_NS, _BEAT_NS = NS_PER_S // 10, NS_PER_S // 15, NS_PER_S // 4
_COMPLAINT_NS = 10 * NS_PER_S
_WORKERS = 2


class Following:
    """One for the server.

    Args:
        about: what a ``hello`` says of the server itself.

    Attributes:
        pages: those that are open.
        status: what the run said last; empty without a run. heard_ns: when its newest tick was seen.
        bodies: of its arm.
    """

    def __init__(self, options: PanelServerOptions, clock: Clock, about: Mapping[str, Any]) -> None:
        self._options = options
        self._clock = clock
        self._about = about
        self.pages: set[PageMail] = set()
        self.status: dict[str, Any] = {}
        self.heard_ns = 0
        self._run: AttachedRun | None = None
        self._ended: Path | None = None
        self._workers = ThreadPoolExecutor(_WORKERS, "panel-pictures")
        self._pictures: SentPictures | None = None
        self.bodies = Bodies()
        self._answers = Answers()
        self._tick, self._tick_ns = -1, 0
        self._due: dict[str, int] = {}

    @property
    def run(self) -> AttachedRun | None:
        """The run that is followed at present."""
        return self._run

    @property
    def encoded(self) -> int:
        """How many pictures of this run were encoded."""
        return 0 if self._pictures is None else self._pictures.encoded

    @property
    def link(self) -> dict[str, Any] | None:
        """What the run's link says, without what is nobody's business."""
        if self._run is None:
            return None
        return {key: value for key, value in self._run.link.items() if key not in ("rings", "pid")}

    def hello(self) -> str:
        """The message that tells a page about run and server."""
        return messages.text("hello", {"run": self.link, "panel": dict(self._about)})

    async def forever(self) -> None:
        """Until cancelled."""
        try:
            while True:
                now_ns = self._clock.now_ns()
                if self._run is None and self._is_due("search", _SEARCH_NS, now_ns):
                    self._search()
                if self._run is not None:
                    self._guarded(lambda: self._look(self._clock.now_ns()))
                watching = any(page.watched.streams for page in self.pages)
                await self._clock.sleep_until_ns(now_ns + (_POLL_NS if watching else _IDLE_NS))
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the run and the workers. Idempotent."""
        if self._run is not None:
            self._run.close()
            self._run = None
        self._workers.shutdown(wait=True, cancel_futures=True)

    # --- from pages

    def command(self, page: PageMail, asked: messages.AskedCommand) -> None:
        """Hand a page's command to the run, now; its answer comes when the run has given it."""
        page.in_control = True
        problem = "no run is alive"
        if self._run is not None:
            try:
                number = self._run.send(asked.name, asked.args, page.name, asked.seen)
                self._answers.expect(number, page, asked.id)
                self._beat()
                return
            except NoRunError as error:
                problem = str(error)
            except ValueError as error:
                problem = f"the command cannot be sent: {error}"
        page.answer(asked.id, ok=False, error=problem)

    def beat(self, page: PageMail) -> None:
        """A page has said that it is there."""
        page.beat_ns = self._clock.now_ns()

    # --- the run

    def _search(self) -> None:
        folders = [self._options.run] if self._options.run is not None else live_runs(self._options.runs)
        for folder in folders:
            try:
                self._attach(AttachedRun.attach(folder, self._clock))
            except NoRunError:
                continue
            return

    def _attach(self, run: AttachedRun) -> None:
        self._run = run
        self._tick, self._tick_ns, self.heard_ns = -1, 0, self._clock.now_ns()
        self._pictures = SentPictures(run, self._workers)
        self.bodies.of_run(run.folder, self._workers)
        self._answers.of_run(run)
        logger.info("following {}", run.folder.name)
        self._to_all("hello", self.hello())

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except NoRunError as error:
            self._gone(str(error))
        except Exception as error:  # what a run shares is not to end what other pages are served
            if self._is_due("complaint", _COMPLAINT_NS, self._clock.now_ns()):
                logger.opt(exception=error).warning("what the run shares is not understood: {}", error)

    def _gone(self, reason: str) -> None:
        logger.info("{}", reason)
        if self._run is not None:
            self._run.close()
        self._run, self._pictures, self.status = None, None, {}
        self._answers.lost(reason)
        for page in self.pages:
            page.forget()
        self._to_all("gone", messages.text("gone", {"reason": reason}))
        self._to_all("hello", self.hello())

    def _look(self, now_ns: int) -> None:
        assert self._run is not None  # noqa: S101 - seen by the caller
        assert self._pictures is not None  # noqa: S101 - made with it
        self._answers.deliver()
        self._pictures.look(self.pages, now_ns, self.status)
        if self._is_due("status", _STATUS_NS, now_ns):
            if self.pages:
                self._look_at_status(self._run)
            self._look_at_ticks(self._run, now_ns)
        if self._is_due("bodies", _BODIES_NS, now_ns):
            self._look_at_bodies(self._run)
        if self._is_due("beat", _BEAT_NS, now_ns):
            self._beat()

    def _is_due(self, what: str, every_ns: int, now_ns: int) -> bool:
        if now_ns < self._due.get(what, 0):
            return False
        self._due[what] = now_ns + every_ns
        return True

    def refresh(self) -> None:
        """Read what the run says now, for whoever asks while no page is open.

        Not all the time: a run copies its pictures while somebody looks.
        """
        if self._run is not None:
            self._guarded(partial(self._look_at_status, self._run))

    def _look_at_status(self, run: AttachedRun) -> None:
        try:
            said = run.status()
        except ValueError as error:
            logger.warning("what {} says of itself is not understood: {}", run.folder.name, error)
            return
        if said is None:
            return
        self.status = said
        self._to_all("status", messages.text("status", said))

    def _look_at_ticks(self, run: AttachedRun, now_ns: int) -> None:
        samples = run.ticks_since(self._tick)
        if not samples:
            return
        self.heard_ns = now_ns
        self._tick = samples[-1].index + 1
        if self.pages:
            self._to_all("ticks", messages.text("ticks", messages.ticks(samples, self._tick_ns)))
        self._tick_ns = samples[-1].stamp_ns

    def _look_at_bodies(self, run: AttachedRun) -> None:
        wanting = [page for page in self.pages if page.watched.bodies]
        if not wanting or not (newest := run.ticks_since(-1)):
            return
        poses = self.bodies.poses(newest[-1]["position"])
        if poses is not None:
            said = messages.text("bodies", {"poses": poses})
            for page in wanting:
                page.put("bodies", said)

    def _beat(self) -> None:
        """Tell the run who is there. Called every now and then, so that it also hears that nobody is."""
        if self._run is None:
            return
        newest = max((page.beat_ns for page in self.pages if page.in_control), default=0)
        self._guarded(partial(self._run.beat, len(self.pages), newest))

    def _to_all(self, key: str, said: str) -> None:
        for page in self.pages:
            page.put(key, said)
