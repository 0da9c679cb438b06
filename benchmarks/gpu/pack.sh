#!/bin/sh
# Packs what a GPU machine without network lacks: FOLDER/engine.*, vLLM with its small dependencies
# but without the kernels it can do without, and FOLDER/lodestar.*, Lodestar with its own and one
# other router to hold it against; in pieces of under 60 MB. Each is a folder of modules as pip
# installs them, so that nothing is left to install there.
# For x86-64, Python 3.12 and PyTorch 2.11 for CUDA 13, which the machine has. About 5 minutes.
#
# usage: pack.sh FOLDER [engine|lodestar]
set -eu
folder=${1:?usage: pack.sh FOLDER [engine|lodestar]}
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
mkdir -p "$folder"
folder=$(CDPATH= cd -- "$folder" && pwd)
python=${PYTHON:-python3}

place() {
    target=$1
    shift
    set -- "$@" --platform manylinux2014_x86_64 --platform manylinux1_x86_64
    for n in 17 24 27 28 29 31 34 35 39; do
        set -- "$@" --platform "manylinux_2_${n}_x86_64"
    done
    "$python" -m pip install --quiet --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp --no-compile --upgrade --target "$target" "$@"
    # Whatever Python there is on the other machine.
    find "$target/bin" -type f -exec sed -i '1s|^#!.*python.*|#!/usr/bin/env python3|' {} +
}

pack() {
    rm -f "$folder/$1".[0-9]
    tar -c -C "$folder/sites" "$1" | xz -T0 -6 | split -b 56000000 -d -a 1 - "$folder/$1."
}

engine() {
    place "$folder/sites/engine" vllm==0.24.0 --requirement "$here/engine-needs.lock"
    (
        cd "$folder/sites/engine/vllm"
        rm -rf vllm_flash_attn/_vllm_fa2_C*.so vllm-rs third_party/fmha_sm100 \
            third_party/deep_gemm _flashmla* _qutlass*
    )
    pack engine
}

lodestar() {
    rm -rf "$folder/wheel"
    "$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder/wheel" "$here/../.."
    place "$folder/sites/lodestar" --requirement "$here/lodestar-needs.lock" "$folder"/wheel/*.whl
    pack lodestar
}

for what in ${2:-engine lodestar}; do
    "$what"
done
