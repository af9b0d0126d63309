"""What a person drives episodes with: keys in the terminal, and HTTP requests of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from loguru import logger

from dexrun.episodes.api import EpisodeApi, ModeRequests
from dexrun.episodes.keys import HELP, open_keys

if TYPE_CHECKING:
    from dexrun.config.recording_options import RecordingOptions
    from dexrun.episodes.episodes import Episodes


class ModeControls(ModeRequests, Protocol):
    """What a person can do in a mode beside episodes, by keys and by HTTP."""

    @property
    def help(self) -> str:
        """The mode's keys, for a person."""

    def commands(self) -> Mapping[str, Callable[[], None]]:
        """What to do for a command of `dexrun.episodes.keys.KeyParser`; raises as `requests`."""


@contextlib.asynccontextmanager
async def remote_controls(
    episodes: Episodes | None, options: RecordingOptions, mode: ModeControls | None = None
) -> AsyncIterator[bool]:
    """Keys and requests are listened to while this is open; yields whether there is a way to say anything.

    Without `episodes` the mode has its own, and nobody else begins or ends one. What cannot be opened is
    said, and left out.
    """
    heard = False
    async with contextlib.AsyncExitStack() as stack:
        extra = None if mode is None else dict(mode.commands())
        if mode is not None and extra is not None and episodes is None:
            extra["help"] = lambda: logger.info("{}", mode.help)
        if options.keys and stack.enter_context(open_keys(episodes, extra=extra)):
            heard = True
            said = [HELP] if episodes is not None else []
            logger.info("{}", "; ".join([*said, *([mode.help] if mode is not None else [])]))
        if options.api:
            api = EpisodeApi(episodes, mode)
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
