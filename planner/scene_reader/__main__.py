"""``python -m planner.scene_reader --port 8001``: the reader on its own, for any OpenAI client to ask."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys

from planner.config import SceneReaderConfig
from planner.scene_reader.server import SceneReader


async def _serve(config: SceneReaderConfig) -> None:
    reader = SceneReader(config)
    try:
        await reader.start()
    except OSError as error:
        raise SystemExit(f"scene reader: port {config.port}: {error.strerror or error}") from None
    sys.stdout.write(f"{reader.base_url}\n")
    sys.stdout.flush()
    try:
        await asyncio.Event().wait()
    finally:
        await reader.close()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m planner.scene_reader", description=__doc__)
    parser.add_argument("--port", type=int, default=8001, help="loopback port; 0 for a free one")
    arguments = parser.parse_args()
    if not 0 <= arguments.port <= 65535:
        parser.error(f"--port {arguments.port}: 0 to 65535 is accepted")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(SceneReaderConfig(port=arguments.port)))


if __name__ == "__main__":
    main()
