"""``python -m tests.panel.talker WORD...``: prints them, a line each; after ``stay`` it goes nowhere."""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__":
    for word in sys.argv[1:]:
        if word == "stay":
            signal.pause()
        sys.stdout.write(f"{word}\n")
        sys.stdout.flush()
    raise SystemExit(7)
