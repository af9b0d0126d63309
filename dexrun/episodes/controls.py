"""What a person drives episodes with: keys in the terminal, and HTTP requests of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from loguru import logger

from dexrun.episodes.api import EpisodeApi
from dexrun.episodes.keys import HELP, open_keys

if TYPE_CHECKING:
    from dexrun.config.recording_options import RecordingOptions
    from dexrun.episodes.episodes import Episodes


@contextlib.asynccontextmanager
async def remote_controls(episodes: Episodes, options: RecordingOptions) -> AsyncIterator[None]:
    """Keys and requests are listened to while this is open. What cannot be opened is said, and left out."""
    async with contextlib.AsyncExitStack() as stack:
        if options.keys and stack.enter_context(open_keys(episodes)):
            logger.info("{}", HELP)
        if options.api:
            api = EpisodeApi(episodes)
            try:
                port = await api.open(options.api_port)
            except OSError as error:
                logger.warning("recording.api_port = {}: {}; no HTTP API", options.api_port, error.strerror)
            else:
                stack.push_async_callback(api.close)
                logger.info("episodes over HTTP: http://127.0.0.1:{}/", port)
        yield
