"""What every data set is, whatever it is stored as.

A data set is episodes of rows at one rate. A row holds what a policy would have been given at that moment,
and the action that followed. Features are named as LeRobot names them::

    observation.state              [D]        the joints
    observation.force              [K]        newtons
    observation.tip                [3]        where the instruction's object was seen last in the base frame,
                                              metres; NaN: not yet
    observation.images.<camera>    [H, W, 3]  RGB uint8
    observation.depth.<camera>     [H, W]     float32 metres, 0: no reading
    observation.masks.<camera>     [H, W]     uint8, 1 on the instruction's object
    action                         [A]
    intervention                   []         bool, whether a person drove

Nothing is decoded before it is read: a feature that is switched off (`Switches`) costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from runtime.messages import Floats

RowNumbers = NDArray[np.int64]
Array = NDArray[Any]

STATE, ACTION, FORCE, TIP, INTERVENTION = (
    "observation.state",
    "action",
    "observation.force",
    "observation.tip",
    "intervention",
)
IMAGES, DEPTH, MASKS = "observation.images.", "observation.depth.", "observation.masks."
"""Each followed by a camera's name."""


class DatasetError(Exception):
    """A data set cannot be used. One line: which file or episode, what is wrong, what would be accepted."""


@dataclass(frozen=True, slots=True)
class Feature:
    """What is constant about a feature: the shape of one row, its dtype, and what its numbers are.

    Attributes:
        unit: ``rad``, ``lerobot_degrees``, ``lerobot_percent``, ``m``, ``N``, ``rgb``, ``mask``, ``bool`` or,
            where the data set does not say, ``""``.
        names: of the entries of a vector.
    """

    shape: tuple[int, ...]
    dtype: str
    unit: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Switches:
    """What is read of a data set; a policy then has inputs for just that.

    Attributes:
        cameras: which; empty: all that there are.
        use_depth, use_force, use_language_tip, use_mask: whether those features are there at all.
    """

    cameras: tuple[str, ...] = ()
    use_depth: bool = False
    use_force: bool = False
    use_language_tip: bool = False
    use_mask: bool = False


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of every entry of a vector over all rows, ``[D]`` each."""

    mean: Floats
    std: Floats
    minimum: Floats
    maximum: Floats
    count: int


class DataEpisode(Protocol):
    """One episode.

    Attributes:
        number: its place in the data set, from 0. name: where it is from.
        length: rows. task: what was to be done, in words. label: ``success``, ``failure`` or ``""``.
    """

    number: int
    name: str
    length: int
    task: str
    label: str

    def read(self, feature: str, rows: RowNumbers) -> Array:
        """``[len(rows), *shape]``, in the order of `rows`, which are within the episode and may repeat.

        Raises:
            DatasetError: a file is damaged, or holds another shape than the data set says.
        """


@runtime_checkable
class SpokenEpisode(Protocol):
    """An episode that can say in words what is being done at a row."""

    def substeps(self, rows: RowNumbers) -> list[str]:
        """The sub-step of each of `rows`; its task where it has none.

        Raises:
            DatasetError: a file is damaged.
        """


def substeps_at(episode: DataEpisode, rows: RowNumbers) -> list[str]:
    """What is being done at each of `rows`, in words: the sub-step, or the task.

    Raises:
        DatasetError: a file is damaged.
    """
    return episode.substeps(rows) if isinstance(episode, SpokenEpisode) else [episode.task] * len(rows)


class Dataset(Protocol):
    """A data set that is open. Read by one thread; pickles for a worker process, which opens it anew.

    Attributes:
        path: file or folder. format: ``mcap``, ``lerobot-v3``, ``lerobot-v2.1``, ``dexgrasp-zarr``,
            ``umi-zarr``, ``act-hdf5`` or ``dexvla-hdf5``.
        rate_hz: rows per second. features: by name, without those that are switched off.
        about: what ``dexrun.json`` beside it, or the recording, says (units, joints, arm's model), as far as
            it does.
        left_out: episodes that cannot be used, by name, and why.
    """

    path: Path
    format: str
    rate_hz: float
    features: Mapping[str, Feature]
    about: Mapping[str, Any]
    left_out: Mapping[str, str]

    @property
    def episodes(self) -> Sequence[DataEpisode]:
        """In their order."""

    def statistics(self, feature: str) -> Statistics:
        """Of a vector, computed from all its rows (images have none).

        Raises:
            DatasetError: it holds a value that is not finite; which episode, which row.
        """

    def fingerprint(self) -> str:
        """A hash of what it holds: the same for the same rows, wherever they lie.

        Of pictures it looks at their number and size only.
        """

    def close(self) -> None:
        """Close its files. Idempotent."""
