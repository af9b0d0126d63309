"""What a person may ask of episodes and of a mode, by name: for the HTTP API, the panel, and whoever else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dexrun.stopping import StopPhase
from runtime.recording.recorder import EpisodeError

if TYPE_CHECKING:
    from dexrun.episodes.episodes import Episodes
    from dexrun.stopping import PersonsStop

EpisodeAction = Callable[["Episodes", Mapping[str, str], str], object]
"""Takes the texts that came with it, and who asks."""

EPISODE_ACTIONS: dict[str, tuple[tuple[str, ...], EpisodeAction]] = {
    "/start": (("task",), lambda episodes, said, by: episodes.start(said.get("task"))),
    "/stop": (("label",), lambda episodes, said, by: episodes.stop(said.get("label"), by)),
    "/discard": ((), lambda episodes, said, by: episodes.discard(by)),
    "/label": (("label",), lambda episodes, said, by: episodes.label(said.get("label", "none"))),
    "/keep": ((), lambda episodes, said, by: episodes.settle()),
    "/quit": ((), lambda episodes, said, by: episodes.quit()),
}


_STOPS: Mapping[str, tuple[str, ...]] = {"/estop": (), "/reset": ("stop",), "/resume": ("stop",)}
"""What a person's stop answers, with the texts that may come with it; ``/resume`` may be the mode's, too."""


class ModeRequests(Protocol):
    """What can be asked of a mode beside episodes."""

    def requests(self) -> Mapping[str, Callable[[], None]]:
        """What to do for a POST to each path; raises `EpisodeError` where it cannot be done now."""

    def state(self) -> Mapping[str, Any]:
        """What the state says besides."""


@runtime_checkable
class ModeTexts(Protocol):
    """A mode that can be told something in words."""

    def texts(self) -> Mapping[str, tuple[str, Callable[[str], None]]]:
        """By path: the key of the text, and what to do with it; raises as `ModeRequests.requests`."""


class RunActions:
    """Both together. Everything happens at once, on the loop, in microseconds.

    Args:
        episodes: those that a person begins and ends; ``None`` where the mode has its own, or has none.
        by: who asks.
        stopping: a person's stop, which comes before everything else.
    """

    def __init__(
        self,
        episodes: Episodes | None,
        mode: ModeRequests | None,
        by: str,
        stopping: PersonsStop | None = None,
    ) -> None:
        self._episodes = episodes
        self._stopping = stopping
        self._mode = mode
        self._by = by
        self._requests = {} if mode is None else mode.requests()
        self._texts: Mapping[str, tuple[str, Callable[[str], None]]] = {}
        if isinstance(mode, ModeTexts):
            self._texts = mode.texts()

    @property
    def known(self) -> tuple[str, ...]:
        """What there is to ask for."""
        episodes = () if self._episodes is None else EPISODE_ACTIONS
        stops = () if self._stopping is None else _STOPS
        return tuple(dict.fromkeys((*episodes, *self._requests, *self._texts, *stops)))

    def allowed(self, path: str) -> tuple[str, ...]:
        """The texts that may come with it."""
        if self._stopping is not None and path in _STOPS:
            return _STOPS[path]
        if path in self._requests:
            return ()
        return (self._texts[path][0],) if path in self._texts else EPISODE_ACTIONS[path][0]

    def act(self, path: str, said: Mapping[str, str]) -> None:
        """Do it; `said` has keys of `allowed` only.

        Raises:
            EpisodeError: it cannot be done now, or is not known at all.
        """
        if path not in self.known:
            raise EpisodeError(f"not in this mode: {path.strip('/')}")
        if self._stopping is not None and self._is_the_stops(path, said, self._stopping):
            return
        if path in self._requests:
            self._requests[path]()
        elif path in self._texts:
            key, do = self._texts[path]
            do(said.get(key, ""))
        else:
            assert self._episodes is not None  # noqa: S101 - else it is not known
            EPISODE_ACTIONS[path][1](self._episodes, said, self._by)

    def _is_the_stops(self, path: str, said: Mapping[str, str], stopping: PersonsStop) -> bool:
        """Whether that is all that is asked for.

        Raises:
            EpisodeError: it cannot be done now.
        """
        seen = said.get("stop")
        if seen is not None and not seen.isdecimal():
            raise EpisodeError("stop: the number of the newest stop is wanted")
        number = None if seen is None else int(seen)
        if path == "/estop":
            stopping.stop(self._by)
        elif path == "/reset":
            stopping.reset(self._by, number)
        elif path == "/resume" and (stopping.phase is StopPhase.RESET or path not in self._requests):
            stopping.go_on(self._by, number)
        elif path == "/quit":
            return stopping.quit()
        elif why := stopping.hinders(path.strip("/")):
            raise EpisodeError(why)
        else:
            return False
        return True

    def state(self) -> dict[str, Any]:
        """How everything stands."""
        more = {} if self._mode is None else self._mode.state()
        stop = {} if self._stopping is None else {"stop": self._stopping.state()}
        return {**({} if self._episodes is None else self._episodes.status().as_json()), **more, **stop}
