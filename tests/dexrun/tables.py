"""What a person may have, as tables in TOML to be put together; `{runs}` and `{cube}` are filled in."""

from __future__ import annotations

_STEPPED = """
[realtime]
clock = "stepped"
[terminal]
style = "none"
[world]
placed = {cube}
[recording]
api = false
"""
ARMS = f"""
runs = "{{runs}}"
[arm]
port = "world:follower"
state_rate_hz = 60
[leader]
port = "world:leader"
role = "leader"
{_STEPPED}"""
TWO_ARMS = f"""
runs = "{{runs}}"
[arms.left]
port = "world:left"
base = {{{{ position_m = [0.0, 0.376, 0.0] }}}}
[arms.right]
port = "world:right"
base = {{{{ position_m = [0.0, 0.0, 0.0] }}}}
[leaders.left]
port = "world:leader_left"
[leaders.right]
port = "world:leader_right"
{_STEPPED}"""
HEAD = """
[cameras.head]
driver = "realsense"
serial = "world:head"
width = 320
height = 240
fps = 10
extrinsics = {{ position_m = [0.05, 0.045, 0.62], look_at_m = [0.165, 0.045, 0.0] }}
"""
WRIST = """
[cameras.wrist]
driver = "opencv"
source = "world:wrist"
width = 160
height = 120
fps = 10
"""
