"""``python -m drivers.world``: the world's process, or a picture of the table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m drivers.world", description=__doc__)
    parser.add_argument("--snapshot", type=Path, metavar="PNG", help="draw both cameras' pictures and end")
    parser.add_argument("--seed", type=int, default=0, help="of the scene (default 0)")
    parser.add_argument("--model", default="", help="of the arm: so100, so101 or a file")
    parser.add_argument("--channel", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--doorbell", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.channel is not None:
        from drivers.world.process import serve

        return serve(options.channel, options.doorbell)
    if options.snapshot is None:
        parser.error("give --snapshot PNG (the world's process is started by drivers.world.client)")
    return _snapshot(options.snapshot, options.seed, options.model)


def _snapshot(path: Path, seed: int, model: str) -> int:
    from drivers.arms import describe
    from drivers.world.config import WorldConfig
    from drivers.world.render import RenderError, prepare_environment
    from runtime.arm_model import ModelError
    from runtime.table_model import MeshesMissingError

    config = WorldConfig(seed=seed)
    prepare_environment(config.render)
    from drivers.world.snapshot import save

    try:
        save(path, config, describe(model))
    except (RenderError, MeshesMissingError, ModelError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
