"""The formats by name. Each module is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module

from dexrun.export.errors import ExportError
from dexrun.export.job import Format

FORMATS = {
    "lerobot-v3": ("dexrun.export.lerobot_v3", "LerobotV3"),
    "lerobot-v2.1": ("dexrun.export.lerobot_v21", "LerobotV21"),
    "dexgrasp-zarr": ("dexrun.export.dexgrasp_zarr", "DexGraspZarr"),
    "umi-zarr": ("dexrun.export.umi_zarr", "UmiZarr"),
    "act-hdf5": ("dexrun.export.hdf5", "ActHdf5"),
    "dexvla-hdf5": ("dexrun.export.hdf5", "DexVlaHdf5"),
}


def format_named(name: str) -> Format:
    """The format.

    Raises:
        ExportError: there is none of that name, or what it needs is not installed.
    """
    if name not in FORMATS:
        raise ExportError(f"unknown format {name!r}; accepted: {', '.join(FORMATS)}")
    module, cls = FORMATS[name]
    for needed in _NEEDS[name]:
        try:
            import_module(needed)
        except ImportError:
            raise ExportError(f"{name} needs the package {needed}: pip install 'dexrun[export]'") from None
    made: Format = getattr(import_module(module), cls)()
    return made


def check_content(name: str, keys: Collection[str]) -> None:
    """Whether what was asked for by `keys` can be in a data set of the format `name` at all.

    Raises:
        ExportError: it would be missing there without a word.
    """
    for key in keys:
        if name not in (only := _ONLY_IN.get(key, (name,))):
            option = key.replace("_", "-")
            raise ExportError(f"--{option} has no effect with {name}; {' and '.join(only)} can have it")


_LEROBOT, _HDF5 = ("lerobot-v3", "lerobot-v2.1"), ("act-hdf5", "dexvla-hdf5")
_ONLY_IN = {
    "codec": _LEROBOT,
    "crf": _LEROBOT,
    "depth": _LEROBOT,
    "equal_length": _HDF5,
    "hdf5_compression": _HDF5,
    "image_size": ("umi-zarr",),
    "language": ("lerobot-v3",),
    "masks": ("lerobot-v3",),
    "robot_type": _LEROBOT,
}
_NEEDS = {
    "lerobot-v3": ("pyarrow", "av"),
    "lerobot-v2.1": ("pyarrow", "av"),
    "dexgrasp-zarr": ("numcodecs",),
    "umi-zarr": ("numcodecs", "scipy"),
    "act-hdf5": ("h5py",),
    "dexvla-hdf5": ("h5py",),
}
