"""``dexrun serve`` of the example configuration, in a process of its own."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

from tests.dexrun.rig import ROOT

EXAMPLE = ROOT / "docs" / "examples" / "remote-policy.toml"
CLIENTS = {"gr00t": "groot", "lerobot": "lerobot_grpc", "openpi": "openpi", "act": "act_zmq"}
STOP_S = 60.0


@contextlib.contextmanager
def served(protocol: str, within: Sequence[str] = (), *more: str) -> Iterator[int]:
    """The port that the server announces. `within` goes before the command, `more` behind it."""
    command = [sys.executable, "-m", "dexrun", "serve", "--config", str(EXAMPLE), "--protocol", protocol]
    process = subprocess.Popen(
        [*within, *command, *more], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(rf"^serving geometric as {protocol} at \w+://[\d.]+:(\d+)", line)
        assert found, line
        yield int(found.group(1))
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0
    finally:
        process.kill()
        process.wait(STOP_S)
        process.stdout.close()
