"""From a recording without masks to DexGraspVLA's data set, by four processes of which some are killed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.pipeline import Pipeline
from dexrun.annotation.processes import WorkerOptions
from dexrun.export.formats import format_named
from dexrun.export.job import export
from dexrun.export.options import ExportOptions
from policies.data.dataset import MASKS, Switches
from policies.data.opening import open_dataset
from policies.data.recorded import describe
from runtime.clock import RealClock
from runtime.recording.annotations import annotation_path
from runtime.recording.reader import Episode
from tests.annotation.drawn import overlap
from tests.annotation.test_pipeline import Killer, killed_in_the_middle
from tests.annotation.truth import CUBE, demonstrated


@pytest.mark.slow
def test_an_episode_without_masks_becomes_a_data_set_whose_masks_are_the_true_ones(tmp_path: Path) -> None:
    recording, true = demonstrated(tmp_path)
    ref = describe(recording)
    assert ref is not None
    assert ref.masks == ()
    killed_in_the_middle(recording, "0.6")
    assert not annotation_path(recording, "head").exists()
    killer = Killer("tracker 1", "writer")
    options = AnnotateOptions(moment=0.6)
    outcome = Pipeline([recording], options, WorkerOptions(), RealClock(), killer).run()
    assert [job.state for job in outcome.jobs] == ["done"]
    with Episode(recording) as episode:
        rows = episode.columns("/annotation/head")
        assert rows["frame"].tolist() == list(range(len(true)))
        assert len(episode.times("/mask/head")) == len(true)
        assert np.linalg.norm(rows["point_m"][0][:2] - (CUBE.x_m, CUBE.y_m)) < 0.01
        assert rows["spread_m"][0] < 0.01
        made = [episode.mask("head", frame) for frame in range(len(true))]
    each = [overlap(mask, one) for mask, one in zip(made, true, strict=True)]
    assert np.mean(each) >= 0.9, np.round(each, 2)  # of 10 frames 1 to 24 pixels show
    assert overlap(np.stack(made), np.stack(true)) >= 0.9  # all pixels of all frames, each sliver included
    export([recording], format_named("dexgrasp-zarr"), tmp_path / "set", ExportOptions(jobs=1, fps=10))
    dataset = open_dataset(tmp_path / "set", Switches(use_mask=True))
    (got,) = dataset.episodes
    masks = got.read(f"{MASKS}head", np.arange(got.length))
    dataset.close()
    assert np.mean([max(overlap(mask, one) for one in made) for mask in masks]) == 1.0
