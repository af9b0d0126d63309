"""Programs that are ended by SIGKILL, at any time, and what the next start makes of what they left."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.campaign_invariants import Episode
from bench.campaign_plan import LIGHT, MODES, Plan, draw

FIRST_SEED = 1_000_000
"""Kills have seeds of their own."""
LOST_NS = 1_000_000_000
"""``kill -9`` costs at most the last second of the open episode."""
GONE_S = 8.0
"""The simulated tabletop looks once a second whether who started it is still there."""
_EPISODE_S = 2.5

Play = Callable[[Plan, Path], Mapping[str, Any]]


def killed_plan(number: int) -> Plan:
    """A run without faults, of short episodes where its mode has several, killed within eight seconds."""
    dice = random.Random(FIRST_SEED + number)  # noqa: S311 - repeatable, which is the point
    plan = draw(FIRST_SEED + number, (dice.choice(MODES),))
    plan["events"] = [
        {
            "at": round(dice.uniform(0.3, 8.0), 3),
            "device": "end",
            "kind": "SIGKILL",
            "seconds": round(dice.uniform(0.0, 0.05), 4),
        }
    ]
    plan["policy"] = {"base": dice.choice(("wander", "still"))}
    plan["options"] = {key: value for key, value in plan["options"].items() if "scene_reader" not in key}
    if plan["mode"] != "grasp":
        plan["options"] |= {"recording.episodes": "5", "recording.episode_s": str(_EPISODE_S)}
    return plan


def next_plan() -> Plan:
    """The start after it: a second of teleoperation."""
    options = LIGHT | {"mode": "teleop", "teleop.scripted": "false", "teleop.duration_s": "0.5"}
    return {"seed": FIRST_SEED, "mode": "teleop", "seconds": 1.0, "options": options, "events": []}


def kill_one(number: int, play: Play, folder: Path) -> dict[str, Any]:
    """Kill one program, start the next one in the same place; what was found, as a line."""
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    plan = killed_plan(number)
    play(plan, folder)
    told = folder / "killed_ns"
    line: dict[str, Any] = {"kill": number, "mode": plan["mode"], "killed": told.exists()}
    found = [f"left over: {each}" for each in _left(folder)]
    runs = folder / "runs"
    finished = {path: _digest(path) for path in runs.glob("2*/episodes/*.mcap")}
    drafts = list(runs.glob("2*/episodes/*.open"))
    result = play(next_plan(), folder)
    if result.get("code") != 0:
        found.append(f"the next start ended with {result.get('code')} {result.get('error', '')}")
    found += [f"{path.name} is not what it was" for path, was in finished.items() if _digest(path) != was]
    if told.exists():
        found += _not_mended(drafts, int(told.read_text()), _end_ns(finished))
    line |= {"finished": len(finished), "open": len(drafts), "violations": found}
    return line | {"wall_s": round(time.monotonic() - began, 1)}


def _end_ns(finished: Iterable[Path]) -> int:
    """When the last of the finished episodes was over; one that was open began later."""
    return max((tick["stamp_ns"] for path in finished for tick in Episode(path).ticks), default=0)


def _not_mended(drafts: list[Path], killed_ns: int, began_ns: int) -> Iterator[str]:
    """What the next start did not make whole of an episode that was open, and not begun before `began_ns`."""
    for draft in drafts:
        path = draft.with_suffix("")
        if draft.exists():
            yield f"{draft.name} is still open"
        if not path.exists():
            if killed_ns - began_ns > LOST_NS:
                yield f"{path.name}: nothing is left of it"
            continue
        try:
            episode = Episode(path)
        except Exception as error:  # whatever is wrong with it
            yield f"{path.name}: {type(error).__name__}: {error}"
            continue
        last_ns = max((tick["stamp_ns"] for tick in episode.ticks), default=0)
        if killed_ns - last_ns > LOST_NS:
            yield f"{path.name}: {(killed_ns - last_ns) / 1e9:.2f} s are lost"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _left(folder: Path) -> list[str]:
    """What a killed run leaves beside its recording once its tabletop has noticed: files, processes."""
    until = time.monotonic() + GONE_S
    while (left := _now(folder)) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def _now(folder: Path) -> list[str]:
    temporary = folder / "tmp"
    files = [f"file {path.name}" for path in temporary.iterdir()] if temporary.is_dir() else []
    mark = f"TMPDIR={temporary}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                found.append(f"process {(entry / 'cmdline').read_bytes()[:80]!r}")
        except OSError:
            continue
    return files + found


def main_lines(count: int, play: Play, folder: Path) -> list[dict[str, Any]]:
    """`count` kills, those that ``kills.jsonl`` in `folder` has already left out; the lines of them all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "kills.jsonl"
    lines = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    for number in range(len(lines), count):
        line = kill_one(number, play, folder / f"kill-{number}")
        lines.append(line)
        with path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        if line["violations"]:
            print(json.dumps(line), file=sys.stderr, flush=True)
        else:
            shutil.rmtree(folder / f"kill-{number}", ignore_errors=True)
    return lines[:count]
