#!/bin/sh
# On the GPU machine: unpacks PIECES/piece.* into SITES/engine (vLLM) and SITES/lodestar.
#
# usage: install.sh PIECES SITES
set -eu
pieces=${1:?usage: install.sh PIECES SITES} sites=${2:?usage: install.sh PIECES SITES}
mkdir -p "$sites/payload"
cat "$pieces"/piece.* | tar -x -C "$sites/payload"
for what in engine lodestar; do
    python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
        --target "$sites/$what" "$sites/payload/$what"/*.whl
done
tar -xJf "$sites/payload/vllm.tar.xz" -C "$sites/engine"
rm -rf "$sites/payload"
