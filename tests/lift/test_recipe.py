"""From demonstrations in memory to a network: what is kept of pictures, what a sample is, what is learned."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from policies.data.dataset import (  # noqa: E402
    ACTION,
    DEPTH,
    FORCE,
    MASKS,
    STATE,
    DatasetError,
    Feature,
    Switches,
)
from policies.data.windows import Windows  # noqa: E402
from policies.lift.config import LiftConfig  # noqa: E402
from policies.lift.options import LiftShape  # noqa: E402
from policies.lift.prepared import CROP, DONE, NUMBERS, prepared  # noqa: E402
from policies.lift.recipe import LiftRecipe  # noqa: E402
from runtime.interfaces import PolicyError  # noqa: E402
from tests.geometric.synthetic import INFO, LOOK, Box, view  # noqa: E402

ROWS = 12
SHAPE = LiftShape(width=32, blocks=1, hypotheses=2, chunk=4)
TABLE = LiftConfig(checkpoint="", shape=SHAPE, picture_width=400)
FEATURES = {
    STATE: Feature((6,), "float32", "rad", tuple("abcdef")),
    ACTION: Feature((6,), "float32", "rad", tuple("abcdef")),
    FORCE: Feature((3,), "float32", "N"),
    f"{DEPTH}head": Feature((300, 400), "float32", "m"),
    f"{MASKS}head": Feature((300, 400), "uint8", "mask"),
}


@dataclass
class Demonstration:
    """An arm that goes to one place from home, over an object that is hidden from row 6 on."""

    number: int
    label: str = "success"
    box: Box = field(default_factory=Box)
    hidden: int = 6
    length: int = ROWS
    task: str = "pick up the cube"
    seen_by: dict[str, Any] = field(default_factory=lambda: {"head": INFO})

    @property
    def name(self) -> str:
        return f"episode_{self.number}"

    def read(self, feature: str, rows: np.ndarray) -> np.ndarray:
        depth, mask = view(self.box)
        goal = LOOK + np.array([0.6, 0.5, -0.4, 0.1, 0.2, 0.3])
        if feature == STATE:
            return (LOOK + (goal - LOOK) * rows[:, None] / ROWS).astype(np.float32)
        if feature == ACTION:
            return np.repeat(goal[None], len(rows), axis=0).astype(np.float32)
        if feature == FORCE:
            return np.full((len(rows), 3), 2.0, np.float32)
        if feature.startswith(DEPTH):
            return np.repeat((depth * np.float32(INFO.depth_scale_m))[None], len(rows), axis=0)
        return np.stack([mask * (row < self.hidden) for row in rows])


@dataclass
class Demonstrations:
    episodes: list[Demonstration]
    rate_hz: float = 30.0
    path: Path = Path("data/lift")
    format: str = "mcap"
    features: dict[str, Feature] = field(default_factory=lambda: dict(FEATURES))
    about: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def fingerprint(self) -> str:
        return "abc"

    def close(self) -> None: ...


def test_pictures_become_numbers_and_failures_are_left_out():
    dataset = prepared(
        Demonstrations([Demonstration(0), Demonstration(1, "failure"), Demonstration(2, hidden=0)]), TABLE
    )
    (episode,) = dataset.episodes  # the second failed, of the third the object is never seen
    rows = np.arange(ROWS)
    numbers = episode.read(NUMBERS, rows)
    assert numbers.shape == (ROWS, 23)
    assert numbers[:, 16].tolist() == [1.0] * 6 + [0.0] * 6  # seen now
    assert np.ptp(numbers[:, 6:16], axis=0).max() == 0.0  # and known all the time
    assert episode.read(CROP, rows).shape == (ROWS, 2, 40, 40)
    assert episode.read(DONE, rows).tolist() == [1.0] * ROWS  # the last 0.4 s are 12 rows
    assert dataset.statistics(STATE).count == ROWS


def test_an_object_that_was_pushed_is_remembered_where_it_is_now():
    first, then = Box(x=0.22), Box(x=0.2)

    class Pushed(Demonstration):
        def read(self, feature: str, rows: np.ndarray) -> np.ndarray:
            self.box = first
            before = super().read(feature, rows)
            self.box = then
            after = super().read(feature, rows)
            at = (rows < 3).reshape(-1, *[1] * (before.ndim - 1))
            return np.where(at, before, after)

    numbers = prepared(Demonstrations([Pushed(0)]), TABLE).episodes[0].read(NUMBERS, np.arange(ROWS))
    away = numbers[:, 6] / 10
    assert away[2] - away[3] == pytest.approx(0.02, abs=0.002)
    assert away[11] == away[5]  # also once the arm hides it


def test_what_is_lacking_is_said():
    without = Demonstrations([Demonstration(0)])
    del without.features[f"{MASKS}head"]
    with pytest.raises(
        DatasetError, match=r"no observation\.masks\.head; the lift policy is trained on depth"
    ):
        prepared(without, TABLE)
    with pytest.raises(DatasetError, match="it is not known where camera 'head' is"):
        prepared(Demonstrations([Demonstration(0, seen_by={})]), TABLE)
    with pytest.raises(DatasetError, match="no demonstration succeeded"):
        prepared(Demonstrations([Demonstration(0, "failure")]), TABLE)
    recipe = LiftRecipe(TABLE, {})
    with pytest.raises(DatasetError, match=r"20 rows a second; policy\.rate_hz must be that, a half"):
        recipe.windows(Demonstrations([], rate_hz=20.0))


def test_a_training_learns_where_the_demonstrator_goes_and_a_robot_reads_it(tmp_path: Path):
    recipe = LiftRecipe(TABLE, {"off_rad": 0.0})
    assert recipe.reads(Switches()) == Switches(("head",), use_depth=True, use_force=True, use_mask=True)
    dataset = recipe.prepare(Demonstrations([Demonstration(0)]), tmp_path / "cache")
    windows = Windows(dataset, recipe.windows(dataset))
    assert recipe.windows(dataset).rows[ACTION] == (0, 2, 4, 6)
    torch.manual_seed(0)
    model = recipe.build(dataset)
    batch = {key: torch.from_numpy(value) for key, value in windows.batch(np.arange(ROWS)).items()}
    optimizer = torch.optim.AdamW(recipe.groups(model), lr=1e-2)
    losses = []
    for _ in range(30):
        loss, parts = recipe.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(parts["l1"]))
    assert losses[-1] < 0.4 * losses[0]
    recipe.save(model, dataset, tmp_path)
    table = json.loads((tmp_path / "policy.json").read_text())
    assert (table["type"], table["camera"], table["rate_hz"]) == ("lift", "head", 15.0)
    assert LiftConfig.model_validate({**table, "checkpoint": str(tmp_path)}).rate_hz == 15.0


def test_weights_to_begin_with_are_refused_and_not_left_out_silently():
    with pytest.raises(PolicyError, match=r"policy\.checkpoint = 'mine': .* trained from the beginning"):
        LiftRecipe(TABLE.model_copy(update={"checkpoint": "mine"}), {})


def test_an_arm_that_is_off_has_to_go_to_the_same_place():
    recipe = LiftRecipe(TABLE, {"off_rad": 0.1, "blind_share": 0.5})
    torch.manual_seed(0)
    numbers, state = torch.ones(200, 23), torch.zeros(200, 1, 6)
    told, at = recipe._disturbed(numbers, state)
    off = at[:, 0]
    assert torch.allclose(told[:, :6] - 1.0, off, atol=1e-6)
    assert 0.08 < float(off[:, :5].std()) < 0.12
    assert float(off[:, 5].abs().max()) == 0.0  # the jaws are where they are
    assert 60 < int((told[:, -1] == 0).sum()) < 140
    rows = torch.full((200, 4, 6), 0.7)
    relative = recipe._relative(rows, at)
    assert torch.allclose((relative + at)[..., :5], rows[..., :5], atol=1e-6)
    assert torch.equal(relative[..., 5], rows[..., 5])
