"""The simulated tabletop's cameras are called whatever the configuration calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dexrun.config.load import load
from dexrun.simulation.tabletop import SimulatedTabletop, _names

CONFIG = """
[arm]
port = "world:follower"
[cameras.top]
driver = "realsense"
serial = "world:head"
extrinsics = { position_m = [0.05, 0.045, 0.62], look_at_m = [0.165, 0.045, 0.0] }
[cameras.side]
driver = "opencv"
source = "world:wrist"
width = 320
height = 240
[grasp]
head = "top"
wrist = "side"
[policy]
type = "geometric"
camera = "top"
"""


class World:
    """Sends from every wire whenever time goes on."""

    def advance(self, to_ns: int) -> dict[str, int]:
        del to_ns
        return {"head": 1, "wrist": 1, "force": 7}


def test_frames_are_announced_by_their_cameras_names(tmp_path: Path) -> None:
    """On the stepped clock a driver waits for what is announced under its own name, and for nothing else."""
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    world: Any = World()
    tabletop = SimulatedTabletop(world, _names(load(["--config", str(file)], {})))
    assert tabletop.lifeline.advance(1) == {"top": 1, "side": 1, "force": 7}
