"""Opens a data set of any format."""

from __future__ import annotations

from pathlib import Path

from policies.data.dataset import DatasetError, Switches
from policies.data.opened import OpenDataset, strided
from policies.data.sampling import SamplingOptions
from runtime.recording.bounds import BROKEN, RecordingError, one_line

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
        rate_hz: rows per second; without it the data set's own. Recordings give any; of rows that are stored
            every second, third... is taken.

    Raises:
        DatasetError: it is none, is damaged as a whole, or has not what is switched on.
    """
    place, switched = Path(path), switches or Switches()
    if not place.exists():
        raise DatasetError(f"{place}: there is no such file or folder; expected {ACCEPTED}")
    try:
        return _opened(place, switched, rate_hz)
    except (*BROKEN, OSError, RecordingError) as error:
        raise DatasetError(f"{place}: cannot be read: {one_line(error)}") from None


def _opened(path: Path, switches: Switches, rate_hz: float | None) -> OpenDataset:
    from policies.data.hdf5 import episode_files, open_hdf5
    from policies.data.lerobot import open_lerobot
    from policies.data.mcap import open_recordings, recorded_files
    from policies.data.replay_buffer import is_buffer, open_buffer

    if (path / "meta" / "info.json").is_file():
        return strided(open_lerobot(path, switches), rate_hz)
    if is_buffer(path):
        return strided(open_buffer(path, switches), rate_hz)
    if recorded_files(path):
        return open_recordings(path, switches, None if rate_hz is None else SamplingOptions(fps=rate_hz))
    if episode_files(path):
        return strided(open_hdf5(path, switches), rate_hz)
    raise DatasetError(f"{path}: no data set; expected {ACCEPTED}")
