#!/bin/sh
# On the GPU machine: unpacks PIECES/WHAT.* into SITES/WHAT and compiles it, so that many engines
# that start at once need not.
#
# usage: install.sh PIECES SITES engine|lodestar
set -eu
usage='usage: install.sh PIECES SITES engine|lodestar'
pieces=${1:?$usage} sites=${2:?$usage} what=${3:?$usage}
mkdir -p "$sites"
cat "$pieces/$what".[0-9] | xz -d -T0 | tar -x -C "$sites"
python3 -m compileall -q -j 0 "$sites/$what" || true
