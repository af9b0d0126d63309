"""Reads a replay buffer with zarr 2, as DexGraspVLA and UMI do, and saves it.

usage: read_zarr2.py STORE OUT.npz
"""

import sys

import numpy as np
import zarr


def main() -> None:
    path, out = sys.argv[1:]
    store = zarr.ZipStore(path, mode="r") if path.endswith(".zip") else zarr.DirectoryStore(path)
    root = zarr.group(store)
    arrays = {f"data/{key}": array[:] for key, array in root["data"].items()}
    arrays.update({f"meta/{key}": array[:] for key, array in root["meta"].items()})
    np.savez(out, version=zarr.__version__, **arrays)


main()
