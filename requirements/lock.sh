#!/bin/sh
# Writes the lock files anew: the newest versions that pyproject.toml allows, with hashes, for every
# Python it allows. One file serves them all: where versions must differ, markers say so.
#
# usage: requirements/lock.sh UV_VERSION        (PYTHON names another interpreter than python3)
set -eu
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch"
"$scratch/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$1"

# lock NAME [OPTION...]: of no index, so that the files say nothing of where they were made.
lock() {
    name=$1
    shift
    "$scratch/bin/uv" pip compile --quiet --upgrade --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
        --output-file "requirements/$name.lock" "$@"
}

# What `make install` installs: the package's dependencies with all extras, and the tools.
lock dev pyproject.toml --extra demo --extra kubernetes --extra kv-events --extra redis \
    --extra tracing --group dev
# The two images, at versions that the tests ran on.
lock serve pyproject.toml --extra kubernetes --extra kv-events --extra redis --extra tracing \
    --constraints requirements/dev.lock
lock simulator pyproject.toml --extra kubernetes --extra simulator \
    --constraints requirements/dev.lock
# What builds the package, apart: the pinned grpcio-tools wants an older protobuf than serving may.
lock build --group build
# What `make test-lowest` puts over dev.lock.
# Not with tracing: what its lowest versions need of others raises protobuf above our floor.
lock lowest pyproject.toml --extra demo --extra kubernetes --extra kv-events \
    --extra redis --resolution lowest-direct
