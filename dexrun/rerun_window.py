"""Rerun's own program: where it is, and whether it can open a window here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dexrun.export.errors import ExportError

TIMELINE = "time"
"""What everything is put at, in recordings and live."""


def must_have_a_display() -> None:
    """Nothing, where a window can be opened.

    Raises:
        ExportError: it cannot.
    """
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        hint = "--web shows it in a browser, --save FILE.rrd keeps it for another machine"
        raise ExportError(f"no display for a window (DISPLAY and WAYLAND_DISPLAY are not set): {hint}")


def viewer_program() -> str:
    """Rerun's own program, as its package brings it."""
    import rerun_cli

    return str(next(Path(rerun_cli.__file__).parent.glob("rerun*")))
