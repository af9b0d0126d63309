"""Rates, intervals and comparisons, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from dexrun.evaluation.figures import compared, exact_p, figures, share
from dexrun.evaluation.results import SceneResult
from dexrun.evaluation.table import table


def scene(seed: int, inside: int, total: int = 4, candidate: str = "a", **more: object) -> SceneResult:
    return SceneResult(
        candidate,
        seed,
        objects_total=total,
        objects_in_tray=inside,
        success=inside == total,
        duration_s=20.0,
        **more,  # type: ignore[arg-type]
    )


def test_a_rate_has_wilsons_interval():
    assert share(190, 200) == {
        "successes": 190,
        "count": 200,
        "rate": 0.95,
        "interval_95": [0.9104, 0.9726],
    }
    assert share(0, 0)["rate"] is None
    assert share(0, 0)["interval_95"] == [0.0, 1.0]


def test_figures_count_objects_scenes_drops_and_clips():
    held = {"grasped": True, "completed": False}
    well = {"grasped": True, "completed": True}
    results = [
        scene(1, 4, clips={"velocity": 2}, attempts=(well, held), inference_s={"p50": 0.01, "max": 0.02}),
        scene(
            2, 3, clips={"velocity": 1, "force": 1}, starved_ticks=5, inference_s={"p50": 0.03, "max": 0.04}
        ),
        SceneResult("a", 3, error="exit 3"),
    ]
    found = figures(results)
    assert found["objects"]["successes"] == 7
    assert found["objects"]["count"] == 8
    assert (found["scenes"]["successes"], found["scenes"]["count"]) == (1, 2)
    assert found["seconds_per_object"] == pytest.approx(40 / 7, abs=0.01)
    assert (found["attempts"], found["drops"]) == (2, 1)
    assert found["clips"] == {"velocity": 3, "force": 1}
    assert found["clips_per_object"] == 0.5
    assert found["starved_ticks"] == 5
    assert found["inference_s"] == {"p50": 0.02, "max": 0.04}
    assert (found["errors"], found["failed_seeds"]) == (1, [2])


def test_two_candidates_are_compared_on_the_scenes_that_both_played():
    first = [scene(s, 4) for s in range(8)] + [scene(8, 2), scene(9, 4)]
    second = [scene(s, 4 if s < 2 else 3, candidate="b") for s in range(8)] + [scene(8, 4, candidate="b")]
    found = compared(first, second)
    assert found["scenes"] == 9
    assert (found["only_first"], found["only_second"]) == (6, 1)
    assert found["p_scenes"] == pytest.approx(2 * (7 + 1) / 2**7)
    assert (found["more_objects_first"], found["more_objects_second"]) == (6, 1)


@pytest.mark.parametrize(
    ("ups", "downs", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (3, 3, 1.0), (10, 0, 0.001953)]
)
def test_the_exact_probability(ups: int, downs: int, p: float):
    assert exact_p(ups, downs) == exact_p(downs, ups) == pytest.approx(p, abs=1e-6)


def test_the_table_is_for_a_person():
    found = {"flow": figures([scene(1, 4), scene(2, 3)]), "still": figures([])}
    text = table(found, {"flow and still": compared([scene(1, 4)], [scene(1, 0)])})
    lines = text.splitlines()
    assert lines[0].split()[:3] == ["objects", "95", "%"]
    assert "7/8 87.5 %" in lines[1]
    assert lines[2].split()[:3] == ["still", "-", "-"]
    assert "cleared by the first alone 1, by the second alone 0 (p = 1)" in lines[3]
