"""The arm on its device thread, on the stepped clock: away and back, and the same every time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from runtime.device import DeviceThread
from runtime.messages import Decision, DeviceError
from tests.feetech.rig import MS, Rig, rig

Trace = list[tuple[int, list[float]]]


async def _session(r: Rig, kinds: list[str], trace: Trace) -> None:
    def report(error: DeviceError) -> Decision:
        kinds.append(error.kind)
        return Decision.HOLD

    clock, arm = r.clock, r.arm
    reader = arm.states.reader("oldest")

    async def tick(ms: int, target: list[float] | None = None) -> None:
        await clock.sleep_until_ns(ms * MS)
        if target is not None:
            arm.targets.post(clock.now_ns(), position=np.array(target))
        while (sample := reader.next()) is not None:
            trace.append((sample.stamp_ns, sample["position"].tolist()))

    thread = DeviceThread(arm, clock, report)
    await thread.start()
    for step in range(10):
        await tick(1_033 + 33 * step, [0.02 * step, 0.1, 0.1, 0.1, 0.1, 0.5])
    r.emulator.unplug()
    await tick(1_500)
    r.emulator.plug()
    await tick(3_000)
    assert thread.state == "running"
    await tick(3_010, [0.3, 0.1, 0.1, 0.1, 0.1, 0.5])
    await tick(3_300)
    assert await thread.stop()


def _run(folder: Path) -> tuple[list[str], Trace]:
    folder.mkdir()
    kinds: list[str] = []
    trace: Trace = []
    with rig(folder, start={"shoulder_pan": 2000}) as r:
        r.clock.run(_session, r, kinds, trace)
    return kinds, trace


def test_the_thread_brings_the_arm_back_and_runs_repeat(tmp_path: Path) -> None:
    kinds, trace = _run(tmp_path / "a")
    assert kinds[0] == "gone"
    assert set(kinds[1:]) <= {"not_found"}
    stamps = [stamp for stamp, _ in trace]
    assert stamps == sorted(set(stamps))
    gap = max(b - a for a, b in pairwise(stamps))
    assert 150 * MS < gap < 2_000 * MS
    assert abs(trace[-1][1][0] - 0.3) < 5e-3
    assert _run(tmp_path / "b") == (kinds, trace)
