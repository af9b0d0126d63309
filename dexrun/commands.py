"""The commands beside running an arm. Each imports what it needs when it is called."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dexrun.exit_codes import BAD_CONFIGURATION, OK


def _fail(message: str) -> int:
    sys.stderr.write(f"dexrun: {message}\n")
    return BAD_CONFIGURATION


def serve(arguments: list[str]) -> int:
    """``dexrun serve``: see `dexrun.serve`."""
    from dexrun.serve.command import main

    return main(arguments)


def replay(arguments: list[str]) -> int:
    """``dexrun replay``: see `dexrun.data.replay`."""
    from dexrun.data.replay import main

    return main(arguments)


def export(arguments: list[str]) -> int:
    """``dexrun export``: see `dexrun.export`."""
    from dexrun.export.command import main

    return main(arguments)


def info(arguments: list[str]) -> int:
    """``dexrun info``: see `dexrun.data.info`."""
    from dexrun.data.info import main

    return main(arguments)


def view(arguments: list[str]) -> int:
    """``dexrun view``: see `dexrun.data.view`."""
    from dexrun.data.view import main

    return main(arguments)


def convert(arguments: list[str]) -> int:
    """``dexrun convert SOURCE TARGET``: a policy checkpoint into safetensors."""
    parser = argparse.ArgumentParser(prog="dexrun convert", description=convert.__doc__)
    parser.add_argument("source", type=Path, help="checkpoint to read (.ckpt, .pt, .pth)")
    parser.add_argument("target", type=Path, help="safetensors file to write")
    options = parser.parse_args(arguments)
    from dexrun.data.convert import convert as convert_file
    from runtime.interfaces import PolicyError

    try:
        sys.stdout.write(f"{convert_file(options.source, options.target)}\n")
    except PolicyError as error:
        return _fail(str(error))
    return OK


def calibrate(arguments: list[str]) -> int:
    """``dexrun calibrate``: see `dexrun.setup.calibrate`."""
    from dexrun.setup.calibrate import main

    return main(arguments)
