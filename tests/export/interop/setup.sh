#!/bin/sh
# Environments with the readers that the exports are proved by, each with its own pins. From the repository's
# root: sh tests/export/interop/setup.sh [lerobot] [lerobot-v21] [lerobot-depth] [zarr2]   (all without arguments)
set -e
python=${PYTHON:-python3.11}
python312=${PYTHON312:-python3.12}
for which in ${*:-lerobot lerobot-v21 lerobot-depth zarr2}; do
    case $which in
    # LeRobot 0.4.4, the last for Python 3.11, with the torch and torchvision that it pins.
    lerobot) "$python" -m venv .venv-lerobot-data && .venv-lerobot-data/bin/pip install -q lerobot==0.4.4 ;;
    # LeRobot 0.3.3, the last that reads version 2.1.
    lerobot-v21) "$python" -m venv .venv-lerobot-v21 && .venv-lerobot-v21/bin/pip install -q lerobot==0.3.3 ;;
    # LeRobot 0.6.1, which knows depth; Python 3.12.
    lerobot-depth) "$python312" -m venv .venv-lerobot-depth &&
        .venv-lerobot-depth/bin/pip install -q 'lerobot[dataset]==0.6.1' ;;
    # zarr 2, as DexGraspVLA and UMI have it.
    zarr2) "$python" -m venv .venv-zarr2 && .venv-zarr2/bin/pip install -q 'zarr==2.16.1' 'numcodecs==0.11.0' 'numpy<2' ;;
    *) echo "$0: unknown environment $which" >&2; exit 2 ;;
    esac
done
