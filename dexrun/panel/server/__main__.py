"""``python -m dexrun.panel.server``: what ``dexrun panel`` does."""

from __future__ import annotations

import sys

from dexrun.panel.server.command import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
