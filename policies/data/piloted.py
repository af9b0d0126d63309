"""Who drove at each row of an episode: rollouts mark what a person did, and leave out where nobody drove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from policies.data.dataset import DatasetError
from policies.data.recorded import EpisodeRef
from runtime.pilot import Pilot

if TYPE_CHECKING:
    from runtime.recording.reader import Episode

TICKS, FIELD = "/ticks", "pilot"


def marked_alike(refs: Sequence[EpisodeRef]) -> list[EpisodeRef]:
    """Beside rollouts, teleoperated episodes are marked, too: their data set has one list of features."""
    if not any(ref.shape.intervention for ref in refs):
        return list(refs)
    return [replace(ref, shape=replace(ref.shape, intervention=True)) for ref in refs]


def pilots(episode: Episode, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """``[T]`` of `runtime.pilot.Pilot` at ticks `rows`; ``None`` where the recording has no such mark."""
    columns = episode.columns(TICKS)
    if FIELD not in columns:
        return None
    return np.asarray(columns[FIELD], np.int64)[rows]


def driven(pilot: NDArray[np.int64], name: str) -> NDArray[np.bool_]:
    """``[T]`` where somebody drove; LeRobot leaves out a pause, too. `name` is the episode's.

    Raises:
        DatasetError: nobody drove at all.
    """
    kept: NDArray[np.bool_] = (pilot == Pilot.POLICY) | (pilot == Pilot.PERSON)
    if kept.sum() < 2:
        raise DatasetError(f"{name}: neither the policy nor a person drove in this episode")
    return kept


def intervention(mark: NDArray[np.bool_] | None) -> dict[str, NDArray[np.bool_]]:
    """The mark as an array ``[T, 1]`` by its name, where there is one, for formats of arrays by name."""
    return {} if mark is None else {"intervention": mark[:, None]}
