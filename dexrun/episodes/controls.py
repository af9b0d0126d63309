"""What a person drives episodes with: keys in the terminal, and HTTP requests of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from loguru import logger

from dexrun.episodes.actions import ModeRequests
from dexrun.episodes.api import EpisodeApi
from dexrun.episodes.keys import HELP, open_keys

if TYPE_CHECKING:
    from dexrun.config.recording_options import RecordingOptions
    from dexrun.episodes.episodes import Episodes
    from dexrun.stopping import PersonsStop


class KeyCommands(Protocol):
    """What a person can do by keys beside episodes."""

    @property
    def help(self) -> str:
        """The keys, for a person; empty: there are none."""

    def commands(self) -> Mapping[str, Callable[[], None]]:
        """What to do for a command of `dexrun.episodes.keys.KeyParser`; raises as `requests`."""


class ModeControls(ModeRequests, KeyCommands, Protocol):
    """What a person can do in a mode beside episodes, by keys and by HTTP."""


@contextlib.asynccontextmanager
async def remote_controls(
    episodes: Episodes | None,
    options: RecordingOptions,
    mode: ModeControls | None = None,
    jog: KeyCommands | None = None,
    stopping: PersonsStop | None = None,
) -> AsyncIterator[bool]:
    """Keys and requests are listened to while this is open; yields whether there is a way to say anything.

    Without `episodes` the mode has its own, and nobody else begins or ends one. What cannot be opened is
    said, and left out. `jog` are the keys that move a leader without an arm; `stopping` is asked first.
    """
    heard = False
    async with contextlib.AsyncExitStack() as stack:
        more = [each for each in (mode, jog) if each is not None]
        extra = {name: act for each in more for name, act in each.commands().items()}
        helped = [*more, *([] if stopping is None else [stopping])]

        def say(first: str = "") -> None:
            if said := "; ".join(filter(None, [first, *(each.help for each in helped)])):
                logger.info("{}", said)

        extra["help" if episodes is None else "more"] = say
        if options.keys and stack.enter_context(open_keys(episodes, None, extra, stopping)):
            heard = True
            say(HELP if episodes is not None else "")
        if options.api:
            api = EpisodeApi(episodes, mode, stopping)
            try:
                port = await api.open(options.api_port)
            except OSError as error:
                logger.warning("recording.api_port = {}: {}; no HTTP API", options.api_port, error.strerror)
            else:
                heard = True
                stack.push_async_callback(api.close)
                what = "episodes" if episodes is not None else "who drives"
                logger.info("{} over HTTP: http://127.0.0.1:{}/", what, port)
        yield heard
