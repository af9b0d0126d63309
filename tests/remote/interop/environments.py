"""``make interop``: the environments and checkouts of the peers named (all by default), then the tests.

What is there already is left as it is. The servers of openpi and GR00T are on no package index: they run from
a checkout, which is cloned into the environment, or named by ``DEXRUN_OPENPI_CHECKOUT`` and
``DEXRUN_GROOT_CHECKOUT``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
READERS = ("lerobot-data", "lerobot-v21", "lerobot-depth", "zarr2")
"""Of data sets, not of wires: their tests are elsewhere."""
PEERS = ("openpi", "lerobot", "ray", "feetech", "groot", "isnet", "edgetam", *READERS)
READERS_TESTS = ("tests/export/test_lerobot.py", "tests/export/test_zarr.py")


@dataclass(frozen=True)
class Checkout:
    """A peer's own repository, and the environment variable that names a copy of it.

    Attributes:
        commit: the one that was tried; empty: the newest.
    """

    variable: str
    url: str
    commit: str = ""


CHECKOUTS = {
    "openpi": Checkout(
        "DEXRUN_OPENPI_CHECKOUT",
        "https://github.com/Physical-Intelligence/openpi",
        "15a9616a00943ada6c20a0f158e3adb39df2ccac",
    ),
    "groot": Checkout("DEXRUN_GROOT_CHECKOUT", "https://github.com/NVIDIA/Isaac-GR00T"),
}


def main(peers: list[str]) -> int:
    """Make what is missing, run the interop tests; the exit code."""
    unknown = sorted(set(peers) - set(PEERS))
    if unknown:
        sys.stderr.write(f"unknown peer {unknown[0]!r}; there are {', '.join(PEERS)}\n")
        return 2
    for peer in peers or PEERS:
        if not (ROOT / f".venv-{peer}" / "bin" / "python").exists():
            script = [str(HERE / "make_envs.sh"), peer]
            made = subprocess.run(script, check=False, env={**os.environ, "PYTHON": sys.executable})
            if made.returncode:
                sys.stderr.write(f"{peer}: its environment could not be made; its tests will be skipped\n")
        if (checkout := CHECKOUTS.get(peer)) is not None:
            _provide(checkout, ROOT / f".venv-{peer}" / "checkout")
    tests = [str(HERE), *READERS_TESTS] if not peers or set(peers) & set(READERS) else [str(HERE)]
    command = [sys.executable, "-m", "pytest", "-q", "-rs", *tests]
    return subprocess.run(command, check=False, cwd=ROOT).returncode


def _provide(checkout: Checkout, folder: Path) -> None:
    """Set its variable, unless it is set: to `folder`, into which it is cloned if need be."""
    if checkout.variable in os.environ:
        return
    if not folder.is_dir() and not _cloned(checkout, folder):
        shutil.rmtree(folder, ignore_errors=True)
        sys.stderr.write(f"{checkout.url} could not be cloned, and {checkout.variable} names no copy of it\n")
        return
    os.environ[checkout.variable] = str(folder)


def _cloned(checkout: Checkout, folder: Path) -> bool:
    """Whether the files of one commit are in `folder`, without what is kept in Git LFS."""
    steps = (
        ["init", "--quiet", str(folder)],
        ["-C", str(folder), "fetch", "--quiet", "--depth", "1", checkout.url, checkout.commit or "HEAD"],
        ["-C", str(folder), "checkout", "--quiet", "FETCH_HEAD"],
    )
    environment = {**os.environ, "GIT_LFS_SKIP_SMUDGE": "1", "GIT_TERMINAL_PROMPT": "0"}
    return all(subprocess.run(["git", *s], check=False, env=environment).returncode == 0 for s in steps)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
