"""Records until it is killed: ``python -m tests.recording.crash_child FOLDER FIRST LIMIT FREE SECONDS``.

Says ``begin N`` before each episode, ``end N`` once its file is finished, and after each flush-worth of time
how many states it has delivered to the open one. LIMIT: bytes that any file may have, 0 for any number;
FREE: `min_free_mib`; SECONDS: of each episode.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path
from unittest import mock

import numpy as np

from runtime.clock import NS_PER_S, RealClock
from runtime.recording.config import RecorderOptions
from runtime.recording.recorder import Recorder
from runtime.recording.tracks import camera_track, rows_track
from runtime.ring import Ring


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main(folder: Path, first: int, limit: int, min_free_mib: float, episode_s: float) -> None:
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    clock = RealClock()
    options = RecorderOptions(flush_s=0.2, settle_s=0.05, min_free_mib=min_free_mib, warn_free_mib=0)
    head = Ring({"color": ((120, 160, 3), "uint8"), "depth": ((120, 160), "uint16")}, 32)
    arm = Ring({"count": ((), "<i8"), "now_ns": ((), "<i8")}, 200)
    tracks = [camera_track("head", head, options), rows_track("arm", "/arm/state", "dexrun.ArmState", arm)]
    recorder = Recorder(clock, options, folder, tracks)
    rng = np.random.default_rng(first)

    async def run() -> None:
        recorder.start()
        count = 0
        for index in range(first, first + 1000):
            say("begin", index)
            take = recorder.begin(index, "until killed")
            start_ns = clock.now_ns()
            while clock.now_ns() - start_ns < episode_s * NS_PER_S and take.end_ns is None:
                now_ns = clock.now_ns()
                noise = rng.integers(0, 256, (120, 160, 3)).astype(np.uint8)
                head.push(now_ns, color=noise, depth=rng.integers(0, 9000, (120, 160)))
                arm.push(now_ns, count=count, now_ns=now_ns)
                say("at", index, f"{now_ns};")
                count += 1
                await clock.sleep_until_ns(now_ns + NS_PER_S // 100)
            if take.end_ns is not None:
                say("stopped", index, recorder.stopped_early)
                break
            recorder.end("success")
            while take.draft.state == "open":
                await clock.sleep_until_ns(clock.now_ns() + NS_PER_S // 200)
            say("end", index)
        await recorder.close()
        say("closed", take.draft.state)

    # What is left of a process that was killed does not hang on how fast the machine's disk is.
    with mock.patch.multiple(os, fsync=lambda descriptor: None, fdatasync=lambda descriptor: None):
        clock.run(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *map(float, sys.argv[4:]))
