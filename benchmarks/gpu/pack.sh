#!/bin/sh
# Packs what a GPU machine without network lacks into FOLDER/piece.*, each under 60 MB: vLLM without
# the kernels it can do without, its small dependencies, and Lodestar with its own.
# For x86-64, Python 3.12 and PyTorch 2.11 for CUDA 13, which the machine has. About 3 minutes.
#
# usage: pack.sh FOLDER
set -eu
folder=${1:?usage: pack.sh FOLDER}
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
mkdir -p "$folder/vllm" "$folder/payload/engine" "$folder/payload/lodestar"
folder=$(CDPATH= cd -- "$folder" && pwd)
python=${PYTHON:-python3}

download() {
    target=$1
    shift
    set -- "$@" --platform manylinux2014_x86_64 --platform manylinux1_x86_64
    for n in 17 24 27 28 31 34 35 39; do
        set -- "$@" --platform "manylinux_2_${n}_x86_64"
    done
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp --dest "$target" "$@"
}

download "$folder" vllm==0.24.0
download "$folder/payload/engine" --requirement "$here/engine-needs.lock"
download "$folder/payload/lodestar" --requirement "$here/lodestar-needs.lock"
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder/payload/lodestar" "$here/../.."

"$python" -m zipfile -e "$folder"/vllm-*.whl "$folder/vllm"
cd "$folder/vllm/vllm"
rm -rf vllm_flash_attn/_vllm_fa2_C*.so vllm-rs third_party/fmha_sm100 third_party/deep_gemm \
    _flashmla* _qutlass*
cd "$folder"
tar -c -C vllm . | xz -T0 -3 > payload/vllm.tar.xz
tar -c -C payload . | split -b 60000000 -d -a 1 - piece.
