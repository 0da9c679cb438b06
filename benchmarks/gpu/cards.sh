#!/bin/sh
# On a GPU machine: a comparison on each of several cards at the same time, a fleet a card.
# What a card's log says and what it measured is in FOLDER/cardN.log and FOLDER/cardN/results. Called
# again, it goes on where it stopped. Environment: SATURATION, DURATION as in compare_on_gpu.py;
# GRAPHS=1 for engines with CUDA graphs.
#
# usage: cards.sh MODEL SITES FOLDER SECONDS CARD:FLEET:PARTS...
#        cards.sh model sites run 1300 0:unequal:agents_low 1:equal:agents_middle
set -eu
usage='usage: cards.sh MODEL SITES FOLDER SECONDS CARD:FLEET:PARTS...'
model=${1:?$usage} sites=${2:?$usage} folder=${3:?$usage} seconds=${4:?$usage}
shift 4
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
mkdir -p "$folder"
folder=$(CDPATH= cd -- "$folder" && pwd) sites=$(CDPATH= cd -- "$sites" && pwd)
model=$(CDPATH= cd -- "$model" && pwd)
until=$(($(date +%s) + seconds))

export CUDA_MPS_PIPE_DIRECTORY="$folder/mps" CUDA_MPS_LOG_DIRECTORY="$folder/mps-logs"
if [ ! -d "$CUDA_MPS_PIPE_DIRECTORY" ]; then
    mkdir "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
    setsid nvidia-cuda-mps-control -d
fi
export PYTHONPATH="$sites/lodestar" PATH="$sites/lodestar/bin:$PATH"

traces=$PWD/traces
# A checkout lacks what its wheel brings, and would be found first.
cd "$folder"

compare() {
    card=$1 fleet=$2 parts=$3 own="$folder/$2-$(echo "$1" | tr -d ,)"
    # Once more if engines that start side by side took each other's ports.
    for _ in 1 2; do
        if python3 -u "$here/compare_on_gpu.py" --model "$model" --engine-path "$sites/engine" \
            --folder "$own" --publish "$own/results" --fleet "$fleet" --gpus "$card" \
            --parts "$parts" ${GRAPHS:+--graphs} --traces "$traces" \
            --saturation "${SATURATION:-56.7}" --duration "${DURATION:-60}" --alone 4096 \
            --seconds $((until - $(date +%s))); then
            return
        fi
    done
}

for asked in "$@"; do
    card=${asked%%:*} rest=${asked#*:}
    fleet=${rest%%:*} parts=${rest#*:}
    compare "$card" "$fleet" "$parts" >>"$folder/$fleet-$(echo "$card" | tr -d ,).log" 2>&1 &
done
wait
