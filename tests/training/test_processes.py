"""Several processes train as one with the batches of all."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from policies.training.accelerating import _several_on_cpu  # noqa: E402
from tests.dexrun.rig import ROOT  # noqa: E402

TRAINING = """
import sys
from pathlib import Path
from tests.training.rig import options, trained
given = {"batch": int(sys.argv[2]), "steps": 2, "device": "auto", "recipe": {"dropout": 0.0}}
trained(options(Path(sys.argv[1]), **given))
"""
"""Arguments: where to, and each process's batch."""


def test_several_processes_without_another_device_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each took itself for the only one, and for the one that writes."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not _several_on_cpu()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert _several_on_cpu()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert not _several_on_cpu()


@pytest.mark.slow
@pytest.mark.skipif(torch.accelerator.is_available(), reason="there they are on devices of their own")
def test_two_processes_lose_what_one_with_twice_the_batch_does(tmp_path: Path) -> None:
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        port = any_port.getsockname()[1]
    together = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }

    def start(to: str, batch: int, more: dict[str, str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", TRAINING, str(tmp_path / to), str(batch)]
        return subprocess.Popen(command, env={**os.environ, **more}, cwd=ROOT)

    ranks = [{**together, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    running = [*(start("two", 2, each) for each in ranks), start("one", 4, {"OMP_NUM_THREADS": "1"})]
    assert [each.wait(timeout=300) for each in running] == [0, 0, 0]

    def told(to: str) -> list[float]:
        """The divergence, which draws no noise."""
        with (tmp_path / to / "figures.csv").open() as file:
            return [float(row["train/kl"]) for row in csv.DictReader(file)]

    assert len(told("two")) == 2
    assert told("two") == pytest.approx(told("one"), rel=1e-4)
    assert [each.name for each in (tmp_path / "two" / "checkpoints").iterdir()] == ["000002"]
