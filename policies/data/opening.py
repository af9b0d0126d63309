"""Opens a data set of any format."""

from __future__ import annotations

from pathlib import Path

from policies.data.dataset import DatasetError, Switches
from policies.data.opened import OpenDataset
from policies.data.sampling import SamplingOptions
from runtime.recording.bounds import BROKEN, one_line

ACCEPTED = (
    "a recording (a run's folder, a folder of runs, a folder of .mcap files), a LeRobot v3.0 or v2.1 "
    "data set, a DexGraspVLA or UMI zarr store, a folder of ACT's or DexVLA's .hdf5 files"
)


def open_dataset(
    path: str | Path, switches: Switches | None = None, *, rate_hz: float | None = None
) -> OpenDataset:
    """The data set at `path`, with what of it is switched on (`Switches()`: cameras, state and action).

    Args:
        path: file or folder, read where it lies.
        switches: without any, colour of all cameras, state and action.
        rate_hz: rows per second; without it the data set's own. Recordings give any; rows that are stored
            can be taken every so many alone.

    Raises:
        DatasetError: it is none, is damaged as a whole, or has not what is switched on.
    """
    from policies.data.mcap import open_recordings, recorded_files

    place, switched = Path(path), switches or Switches()
    if not place.exists():
        raise DatasetError(f"{place}: there is no such file or folder; expected {ACCEPTED}")
    try:
        if recorded_files(place):
            return open_recordings(place, switched, None if rate_hz is None else SamplingOptions(fps=rate_hz))
    except (*BROKEN, OSError) as error:
        raise DatasetError(f"{place}: cannot be read: {one_line(error)}") from None
    raise DatasetError(f"{place}: no data set; expected {ACCEPTED}")
