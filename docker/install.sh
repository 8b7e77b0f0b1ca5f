#!/bin/sh
# install.sh DEVICE VENV: make VENV with the packages of the requirements.lock in this folder, every file held to its hash.
#
# DEVICE cuda: all of them. PyPI's torch for x86-64 brings CUDA; it runs without a GPU, too.
# DEVICE cpu:  those that need no CUDA, then torch's own three for CPUs, of the lock's versions. PyTorch builds these anew
#              and does not put them on PyPI, so the lock has no hashes of them; `--torch-backend` knows where they are.
#              pytorch3d, which is built against CUDA, is left out: meshes are prepared in the other image.
set -eu
device=$1
venv=$2
made_for_cuda='^(torch|torchaudio|torchvision|triton|easypytorch3d|nvidia-(cu|nccl|nv)[a-z0-9-]*|cuda-[a-z-]+)=='

case $device in
cuda) drop='^$' ;;
cpu) drop=$made_for_cuda ;;
*)
    echo "error: DEVICE is '$device': give cuda or cpu" >&2
    exit 2
    ;;
esac

python3 -m venv --without-pip "$venv"
uv() { "$venv/bin/uv" pip "$@" --quiet --python "$venv/bin/python"; }

sed -n '/^uv==/,/# via/p' requirements.lock > "$venv/uv.lock"
python3 -m pip --python "$venv/bin/python" install --quiet --disable-pip-version-check --no-cache-dir \
    --require-hashes -r "$venv/uv.lock"
awk -v drop="$drop" '/^[^ #]/ { keep = $0 !~ drop } keep' requirements.lock > "$venv/requirements.lock"
uv sync --require-hashes "$venv/requirements.lock"

if [ "$device" = cpu ]; then
    grep -oE '^(torch|torchaudio|torchvision)==[0-9.]+' requirements.lock > "$venv/torch.txt"
    uv install --no-deps --torch-backend cpu -r "$venv/torch.txt"
fi
