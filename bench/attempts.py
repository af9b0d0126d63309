"""Whether attempts end on their own end: real-time runs of the default configuration beside busy processes.

``python -m bench.attempts`` makes `--runs` whole runs, each clearing the simulated table, while `--busy`
processes compute, and prints one JSON line. An attempt is false if it was given up in less than a second:
no arm gets down to the table in that time, so the verdict was somebody else's.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FALSE_S = 1.0
_LINE = re.compile(r"(\d\d:\d\d:\d\d\.\d{3}).* (grasp .* \(attempt \d+\)|home \(not grasped\)|place .*)$")


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute without end."""
    spin = "while True: pass"
    processes = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def given_up_s(log: str, attempts: int) -> list[float]:
    """How long each attempt took that was given up, by the times in a run's log.

    An attempt whose object the planner does not find is counted and never begins.

    Raises:
        ValueError: the log tells of more attempts, or of none.
    """
    began, begun, lasted = None, 0, []
    for found in filter(None, map(_LINE.search, log.splitlines())):
        at, what = datetime.strptime(found[1], "%H:%M:%S.%f"), found[2]
        if what.startswith("grasp"):
            began, begun = at, begun + 1
            continue
        if began is not None and what.startswith("home"):
            lasted.append((at - began).total_seconds() % 86400)
        began = None
    if begun > attempts or (attempts and not begun):
        raise ValueError(f"the log tells of {begun} attempts, the summary of {attempts}")
    return lasted


def one_run(folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """A whole run; its figures."""
    words = [sys.executable, "-m", "dexrun", "--config", str(ROOT / "config.toml"), "--runs", str(folder)]
    code = subprocess.run([*words, "--terminal.style", "none", *arguments], cwd=ROOT, check=False).returncode
    latest = folder / "latest"
    summary = json.loads((latest / "summary.json").read_text())
    short = [s for s in given_up_s((latest / "log.txt").read_text(), len(summary["attempts"])) if s < FALSE_S]
    return {
        "exit_code": code,
        "objects": summary["judge"]["objects_total"],
        "in_tray": summary["judge"]["objects_in_tray"],
        "attempts": len(summary["attempts"]),
        "not_grasped": sum(not attempt["grasped"] for attempt in summary["attempts"]),
        "false_attempts": len(short),
        "policy_failures": sum(summary["policy"]["failures"].values()),
        "policy_faults": sum(summary["device_faults"].get("policy", {}).values()),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the line; 1 if there was a false attempt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--busy", type=int, default=2)
    options, rest = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as folder, busy(options.busy):
        runs = [one_run(Path(folder), rest) for _ in range(options.runs)]
    total = {key: sum(run[key] for run in runs) for key in runs[0] if key != "exit_code"}
    codes = [run["exit_code"] for run in runs]
    print(json.dumps({"runs": len(runs), "busy": options.busy, "exit_codes": codes, **total}))
    return int(total["false_attempts"] > 0)


if __name__ == "__main__":
    sys.exit(main())
