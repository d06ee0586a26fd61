#!/usr/bin/env bash
# Every table and figure in results/ and experiments/, from the records committed there.
#   PYTHON=python scripts/results.sh [OUTPUT]
# By default they are written where they stand.
set -eu
export OMP_NUM_THREADS=1  # the last digits of statement 7 are those of the threads
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
output=${1:-results}

photographs=results/tiny_imagenet_100
"$python" -m bn_inception compare "$photographs"/runs/* output="$output/tiny_imagenet_100"
"$python" -m bn_inception claims "$photographs"/runs/* output="$output/tiny_imagenet_100"

# Seed 0 at every rate: the plain network's runs are those that chose the scale's factor.
"$python" experiments/studies.py scale.rate_factor "$output/tiny_imagenet_100/rate/rate" \
    experiments/rate_factor/runs/*rate{4,8,32}-* "$photographs"/runs/*-seed0 "$photographs"/rate/runs/*

"$python" experiments/figure1.py results/mnist/figure1.json "$output/mnist"
