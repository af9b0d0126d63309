"""``gymnasium.make("dexrun/Tabletop-v0")``: the simulated tabletop, for anybody's policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dexrun.config.settings import Settings
from dexrun.gym.attempts import lifted
from dexrun.gym.defaults import default_settings, lighter
from dexrun.gym.engine import TableEngine
from dexrun.gym.eyes import Shot
from dexrun.gym.held import HeldTarget
from dexrun.gym.sight import Sight, box_of
from drivers.world.judge import in_tray, judge
from runtime.interfaces import PerceptionError
from runtime.messages import ColorImage, Floats

_BEYOND = 0.5
"""Joints may be measured this far outside of their range (rad; a gripper: a fraction)."""
_MOST_FORCE_N = 1000.0
_MOST_DEPTH_M = 10.0
_SEEDS = 2**31 - 1

WIRES: Mapping[str, Literal["head", "wrist"]] = {"head": "head", "wrist": "wrist"}


class TabletopEnv(gymnasium.Env[dict[str, Any], Any]):
    """An SO-100 (or what `settings` describe) at a table with a tray.

    Action: joint targets ``[D]``, radians, a gripper 0 (closed) to 1 (open), reached straight within a step,
    through the runtime's safety stage. Observation: ``agent_pos`` ``[D]``, ``force`` ``[3]``
    newtons, ``pixels`` with ``[H, W, 3]`` for each camera, and as asked for ``depth.head`` ``[H, W]`` metres
    (0: no reading), ``mask.head`` ``[H, W]``, 1 on the object that is next (tracked by its colour; the box
    in which it is found at first is the scene's).

    Args:
        task: ``clear``: reward 1 for each object that comes into the tray (-1 where one leaves it), over when
            all are in it; ``lift``: reward 1, and over, once the next object is held up.
        cameras: of ``head``, ``wrist``; width, height: of all; rate_hz: steps a second.
        objects: how many; 3 to 5 by chance if not given. scene: always this one; else `reset`'s seed, or one
            drawn. looks: ``[world.look] vary``.
        seconds: an episode is cut off after so many. settings: a whole configuration.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's

    def __init__(
        self,
        *,
        task: Literal["clear", "lift"] = "clear",
        cameras: Sequence[str] = ("head", "wrist"),
        width: int = 128,
        height: int = 96,
        rate_hz: float = 10.0,
        depth: bool = False,
        mask: bool = False,
        objects: int | None = None,
        scene: int | None = None,
        looks: float = 0.0,
        seconds: float = 60.0,
        settings: Settings | None = None,
        render_mode: str | None = None,
    ) -> None:
        if task not in ("clear", "lift"):
            raise ValueError(f"task {task!r}: accepted are clear, lift")
        if unknown := [name for name in cameras if name not in WIRES]:
            raise ValueError(f"camera {unknown[0]!r}: accepted are {', '.join(WIRES)}")
        if (depth or mask) and "head" not in cameras:
            raise ValueError("depth and mask are of the camera 'head', which is not among the cameras")
        self.render_mode = render_mode
        self._settings = lighter(settings or default_settings())
        self._task, self._scene, self._seconds = task, scene, seconds
        self._world = self._settings.world.model_copy(
            update={"objects": objects, "look": self._settings.world.look.model_copy(update={"vary": looks})}
        )
        pictures = {
            name: Shot(WIRES[name], width, height, depth=depth and name == "head") for name in cameras
        }
        self._engine = TableEngine(self._settings, pictures)
        self._ticks = max(1, round(self._settings.control.rate_hz / rate_hz))
        self._cameras, self._depth = tuple(cameras), depth
        self._sight = Sight(self._settings.perception) if mask else None
        self._held = HeldTarget(self._engine.home, self._ticks)
        self.metadata = {**self.metadata, "render_fps": round(rate_hz)}
        self.action_space, self.observation_space = self._spaces(width, height)
        self._target = -1
        self._inside = self._steps = 0

    def _spaces(self, width: int, height: int) -> tuple[spaces.Box, spaces.Dict]:
        layout = self._engine.model.layout
        low, high = layout.ranges[:, 0].astype(np.float32), layout.ranges[:, 1].astype(np.float32)
        size = (height, width)
        seen: dict[str, spaces.Space[Any]] = {
            "agent_pos": spaces.Box(low - _BEYOND, high + _BEYOND, dtype=np.float32),
            "force": spaces.Box(-_MOST_FORCE_N, _MOST_FORCE_N, (3,), np.float32),
        }
        if self._cameras:
            picture = spaces.Box(0, 255, (*size, 3), np.uint8)
            seen["pixels"] = spaces.Dict(dict.fromkeys(self._cameras, picture))
        if self._depth:
            seen["depth.head"] = spaces.Box(0.0, _MOST_DEPTH_M, size, np.float32)
        if self._sight is not None:
            seen["mask.head"] = spaces.Box(0, 1, size, np.uint8)
        return spaces.Box(low, high, dtype=np.float32), spaces.Dict(seen)

    @property
    def task_description(self) -> str:
        """In words, for policies that take some."""
        name = self._engine.table.objects[self._target].name if self._target >= 0 else ""
        return f"pick up the {name}" if self._task == "lift" else "clear the table"

    # --- Gymnasium's calls

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A new scene: `scene` of the options or of `make`, else `seed`, else one by chance."""
        super().reset(seed=seed)
        scene = (options or {}).get("scene", self._scene)
        if scene is None:
            scene = seed if seed is not None else int(self.np_random.integers(_SEEDS))
        world = self._world.model_copy(update={"seed": int(scene)})
        self._engine.load(world)
        self._held.begin(self._engine.home)
        self._engine.control.follow(self._held)
        self._engine.tick()
        self._steps, self._inside = 0, 0
        self._choose()
        return self._observed(), self._info()

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Go to `action` within one step."""
        self._held.aim(np.asarray(action, dtype=np.float64))
        for _ in range(self._ticks):
            self._engine.tick()
        self._steps += 1
        reward, done = self._scored()
        if self._gone(self._target):
            self._choose()
        stopped = self._engine.control.state == "stopped"
        late = self._steps * self._ticks / self._settings.control.rate_hz >= self._seconds
        return self._observed(), reward, done, bool(late or stopped), self._info(done)

    def render(self) -> ColorImage | None:
        """What the first camera sees."""
        eyes = self._engine.eyes
        if self.render_mode != "rgb_array" or eyes is None or not self._cameras:
            return None
        return eyes.frame(self._cameras[0]).color.copy()

    def close(self) -> None:
        """Release graphics."""
        self._engine.close()

    # --- what there is to say

    def _scored(self) -> tuple[float, bool]:
        table = self._engine.table
        if self._task == "lift":
            done = self._target >= 0 and lifted(self._engine, self._target)
            return float(done), done
        report = judge(table)
        gained, self._inside = report.objects_in_tray - self._inside, report.objects_in_tray
        return float(gained), report.success

    def _gone(self, index: int) -> bool:
        return index < 0 or in_tray(self._engine.table.object_pose(index)[0])

    def _choose(self) -> None:
        """The object that is next: the nearest that is not in the tray."""
        engine = self._engine
        places = {
            index: engine.table.object_pose(index)[0]
            for index, present in enumerate(engine.table.present)
            if present and not self._gone(index)
        }
        self._target = min(places, key=lambda index: float(np.linalg.norm(places[index][:2])), default=-1)
        if self._sight is None or engine.eyes is None or self._target < 0:
            return
        box = box_of(engine.table, self._target, engine.eyes.true_infos["head"])
        self._sight.forget()
        if box is not None:
            try:
                self._sight.begin(engine.eyes.frame("head"), box, self._steps)
            except PerceptionError:
                self._sight.forget()  # it is hidden: the mask is empty

    def _observed(self) -> dict[str, Any]:
        engine, space = self._engine, self.observation_space
        assert engine.eyes is not None  # noqa: S101 - a scene is loaded
        state, force = engine.arm.states.newest(), engine.force.newest()
        assert state is not None  # noqa: S101 - there was a tick
        assert force is not None  # noqa: S101 - as above
        assert isinstance(space, spaces.Dict)  # noqa: S101 - `_spaces` made it
        seen: dict[str, Any] = {
            "agent_pos": _within(state["position"], space["agent_pos"]),
            "force": _within(force["force"], space["force"]),
        }
        if self._cameras:
            seen["pixels"] = {name: engine.eyes.frame(name).color for name in self._cameras}
        if self._depth:
            depth = engine.eyes.frame("head").depth
            assert depth is not None  # noqa: S101 - it was asked for
            metres = depth.astype(np.float32) * np.float32(self._world.head.depth_scale_m)
            seen["depth.head"] = np.minimum(metres, np.float32(_MOST_DEPTH_M))
        if self._sight is not None:
            seen["mask.head"] = self._mask(engine.eyes.frame("head").color.shape[:2])
        return seen

    def _mask(self, size: tuple[int, ...]) -> NDArray[np.uint8]:
        assert self._sight is not None  # noqa: S101 - the caller looked
        assert self._engine.eyes is not None  # noqa: S101 - a scene is loaded
        try:
            return self._sight.look(self._engine.eyes.frame("head")).mask
        except PerceptionError:
            return np.zeros(size, np.uint8)

    def _info(self, done: bool = False) -> dict[str, Any]:
        report = judge(self._engine.table)
        specs = self._engine.table.objects
        name = specs[self._target].name if self._target >= 0 else ""
        return {
            "is_success": bool(done),
            "objects_in_tray": report.objects_in_tray,
            "objects_total": report.objects_total,
            "instruction": name,
            "scene": self._engine.world.seed,
        }


def _within(values: Floats, space: spaces.Space[Any]) -> NDArray[np.float32]:
    assert isinstance(space, spaces.Box)  # noqa: S101 - all vectors are
    return np.clip(values.astype(np.float32), space.low, space.high)
