"""A campaign of faults: whole runs on simulated time, each with its own, and what must hold of them all.

``python -m bench.campaign --runs 1000 --folder /tmp/campaign`` plays runs by number (their seed), writes a
line on each to ``runs.jsonl`` there, and prints one JSON line with the counts of all. It goes on where it
was stopped. ``--seed 17 --keep`` plays one run, says what was found, and keeps what it left behind.
``--kills 50`` ends so many programs by SIGKILL, and looks at what the next start makes of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.campaign_invariants import judge
from bench.campaign_kills import main_lines
from bench.campaign_plan import MODES, Plan, draw, faults

ROOT = Path(__file__).parents[1]
HANG_S = 400.0
"""A run of twenty simulated seconds takes a tenth of this on a machine that does other things too."""
RUNS_PER_PROCESS = 25

Line = dict[str, Any]


class Player:
    """A process that plays runs one after the other (`bench.campaign_run`); a new one if it hangs or dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._results: Any = None
        self._said: Any = None
        self._played = 0

    def play(self, plan: Plan, folder: Path) -> Line:
        """What the run came to; an ``error`` if the process did not survive it."""
        if self._process is None or self._played >= RUNS_PER_PROCESS:
            self.close()
            self._start()
        process = self._process
        assert process is not None  # noqa: S101 - just started
        assert process.stdin is not None  # noqa: S101 - a pipe
        self._played += 1
        process.stdin.write(json.dumps({"plan": plan, "folder": str(folder)}) + "\n")
        process.stdin.flush()
        if not select.select([self._results], [], [], HANG_S)[0]:
            where = self._asked_where(process)
            self._end()
            return {"code": None, "error": f"nothing came of it within {HANG_S:g} s", "stacks": where}
        line = self._results.readline()
        if not line:
            code = process.wait()
            self._end()
            return {"code": None, "error": f"the program's process ended (status {code})"}
        return dict(json.loads(line))

    def _start(self) -> None:
        ours, theirs = os.pipe()
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by _end
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.campaign_run", str(theirs)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            text=True,
            pass_fds=(theirs,),
            env={**os.environ, "CAMPAIGN_RUN": f"{os.getpid()}-{time.monotonic_ns()}"},
        )
        os.close(theirs)
        self._results, self._played = os.fdopen(ours), 0

    def _asked_where(self, process: subprocess.Popen[str]) -> str:
        """What every thread of a process that hangs is at."""
        self._said.seek(0, os.SEEK_END)
        before = self._said.tell()
        process.send_signal(signal.SIGUSR1)
        time.sleep(1.0)
        self._said.seek(before)
        return str(self._said.read())

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        streams: tuple[Any, ...] = (process.stdin, self._results, self._said)
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.close()

    def close(self) -> None:
        """Let the process go by itself."""
        if self._process is None:
            return
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10.0)
        self._end()


def one(player: Player, plan: Plan, folder: Path, *, keep: bool) -> Line:
    """Play and judge one run; its line."""
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    result = player.play(plan, folder)
    figures = judge(plan, result, folder / "runs") if (folder / "runs").is_dir() else _nothing(result)
    violations = {kind: said for kind, said in figures["violations"].items() if said}
    if not keep and not violations:
        shutil.rmtree(folder, ignore_errors=True)
    motion = result.get("motion", {}).get("driven", {})
    return {
        "seed": plan["seed"],
        "mode": plan["mode"],
        "faults": faults(plan),
        "code": result["code"],
        "error": result.get("error", ""),
        **({"stacks": result["stacks"]} if "stacks" in result else {}),
        **{key: value for key, value in figures.items() if key != "violations"},
        "violations": {kind: said[:6] for kind, said in violations.items()},
        "contact_n": round(max((c["n"] for c in motion.get("contacts", {}).values()), default=0.0), 1),
        "rss_mib": result.get("rss_mib"),
        "cpu_s": result.get("cpu_s"),
        "wall_s": round(time.monotonic() - began, 2),
    }


def _nothing(result: Mapping[str, Any]) -> dict[str, Any]:
    return {"violations": {"summaries": [f"no run's folder: {result.get('error') or result.get('code')}"]}}


def counts(lines: Iterable[Line]) -> Line:
    """The figures of a campaign."""
    lines = list(lines)
    found: Counter[str] = Counter()
    for line in lines:
        found.update(line["violations"].keys())
    done = Counter(name for line in lines for name in line["faults"])
    return {
        "bench": "campaign",
        "runs": len(lines),
        "modes": dict(sorted(Counter(line["mode"] for line in lines).items())),
        "exit_codes": {
            str(code): n for code, n in sorted(Counter(line["code"] for line in lines).items(), key=str)
        },
        "simulated_s": round(sum(line.get("duration_s", 0.0) for line in lines)),
        "ticks": sum(line.get("ticks", 0) for line in lines),
        "targets": sum(line.get("targets", 0) for line in lines),
        "samples": sum(line.get("samples", 0) for line in lines),
        "faults": sum(done.values()),
        "fault_kinds": len(done),
        "runs_with_violations": {
            kind: found[kind]
            for kind in ("targets", "motions", "samples", "exit_codes", "summaries", "left_over")
        },
        "seeds": [line["seed"] for line in lines if line["violations"]],
        "unwitnessed": sum(not line.get("witnessed") for line in lines),
        "cpu_s_per_run": round(sum(line.get("cpu_s") or 0.0 for line in lines) / max(1, len(lines)), 1),
    }


def read(path: Path) -> list[Line]:
    """The runs that are done; a line that was cut off is not one."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def campaign(
    seeds: Iterable[int], modes: tuple[str, ...], folder: Path, *, keep: bool = False, jobs: int = 1
) -> list[Line]:
    """Play those of `seeds` that `folder` has no line of, `jobs` at a time; the lines of all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    path, wanted = folder / "runs.jsonl", list(seeds)
    done = {line["seed"]: line for line in read(path)}
    left = queue.SimpleQueue[int]()
    for seed in wanted:
        if seed not in done:
            left.put(seed)
    writing = threading.Lock()

    def play() -> None:
        player = Player()
        try:
            while True:
                seed = left.get_nowait()
                line = one(player, draw(seed, modes), folder / f"run-{seed}", keep=keep)
                with writing, path.open("a") as stream:
                    done[seed] = line
                    stream.write(json.dumps(line) + "\n")
                if line["violations"]:
                    print(json.dumps({"seed": seed, **line["violations"]}), file=sys.stderr, flush=True)
        except queue.Empty:
            pass
        finally:
            player.close()

    with ThreadPoolExecutor(jobs) as pool:
        for played in [pool.submit(play) for _ in range(jobs)]:
            played.result()
    return [done[seed] for seed in wanted]


def kills(count: int, folder: Path) -> int:
    """End so many programs the hard way; print the line; 1 if anything was violated."""
    player = Player()
    try:
        lines = main_lines(count, player.play, folder)
    finally:
        player.close()
    wrong = [line["kill"] for line in lines if line["violations"]]
    figures = {key: sum(line[key] for line in lines) for key in ("killed", "finished", "open")}
    print(json.dumps({"bench": "campaign", "kills": len(lines), **figures, "wrong": wrong}))
    return int(bool(wrong))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the line; 1 if anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, action="append", help="these seeds alone")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--folder", type=Path, help="where the lines are, and what runs with violations left")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side; two cores bear two")
    parser.add_argument("--keep", action="store_true", help="keep what every run left")
    parser.add_argument("--kills", type=int, default=0, help="so many kill -9, instead of runs")
    options = parser.parse_args(arguments)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="campaign-"))
    if options.kills:
        return kills(options.kills, folder)
    seeds = options.seed or range(options.first, options.first + options.runs)
    figures = counts(
        campaign(seeds, tuple(options.modes.split(",")), folder, keep=options.keep, jobs=options.jobs)
    )
    print(json.dumps(figures))
    return int(any(figures["runs_with_violations"].values()))


if __name__ == "__main__":
    sys.exit(main())
