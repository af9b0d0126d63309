"""Makes the environments of the peers named (all of them by default), then runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = ("openpi", "lerobot", "ray", "feetech", "groot")


def main(peers: list[str]) -> int:
    """Make what is missing, run the interop tests; the exit code."""
    unknown = sorted(set(peers) - set(PEERS))
    if unknown:
        sys.stderr.write(f"unknown peer {unknown[0]!r}; there are {', '.join(PEERS)}\n")
        return 2
    root = HERE.parents[2]
    for peer in peers or PEERS:
        if not (root / f".venv-{peer}" / "bin" / "python").exists():
            script = [str(HERE / "make_envs.sh"), peer]
            made = subprocess.run(script, check=False, env={**os.environ, "PYTHON": sys.executable})
            if made.returncode:
                sys.stderr.write(f"{peer}: its environment could not be made; its tests will be skipped\n")
    return subprocess.run([sys.executable, "-m", "pytest", "-q", str(HERE)], check=False, cwd=root).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
