#!/usr/bin/env bash
# Every table and figure in results/, from the records there and in experiments/.
#   PYTHON=python scripts/results.sh [OUTPUT]
# By default they are written where they stand.
set -eu
export OMP_NUM_THREADS=1  # the last digits of statement 7 are those of the threads
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
output=${1:-results}

photographs=results/tiny_imagenet_100
"$python" -m bn_inception compare "$photographs"/{,dropout/}runs/* \
    output="$output/tiny_imagenet_100"
"$python" -m bn_inception claims "$photographs"/{,dropout/}runs/* \
    output="$output/tiny_imagenet_100"

# All seeds at every rate: the plain network's runs to 32 are those that chose the scale's factor.
"$python" experiments/studies.py scale.rate_factor "$output/tiny_imagenet_100/rate/rate" \
    experiments/rate_factor/runs/*rate{4,8,32}-* "$photographs"/runs/* "$photographs"/rate/runs/* \
    "$photographs"/crops/runs/bn_x30-*

# Seed 0 at every length; that of the main table is a compression of 1000.
"$python" experiments/studies.py scale.compression "$output/tiny_imagenet_100/length/length" \
    "$photographs"/runs/{inception,bn_baseline,bn_x5}-cpu-seed0 "$photographs"/length/runs/*

# Seed 0 by the rule of the initial weights, at a quarter of the length; he is the recipes' own.
"$python" experiments/studies.py network.initialization \
    "$output/tiny_imagenet_100/initialization/initialization" \
    "$photographs"/length/runs/*-compression4000-* "$photographs"/initialization/runs/*

# Seed 0 with one modification of section 4.2.1 at a time, and with all of them, at a quarter of the
# length.
"$python" -m bn_inception compare "$photographs"/length/runs/bn_{baseline,x5}-cpu-compression4000-seed0 \
    "$photographs"/modifications/runs/* baseline=bn_baseline-cpu-compression4000-seed0 \
    output="$output/tiny_imagenet_100/modifications"

# Figure 1(b, c) for the real network, at a quarter of the length.
"$python" -m bn_inception compare "$photographs"/probe/runs/* output="$output/tiny_imagenet_100/probe"

# Figure 4, at a quarter of the main table's rates, where BN-x30 learns.
for command in compare claims; do
    "$python" -m bn_inception $command "$photographs"/{rate/runs/bn_x30-*,crops/runs/*,crops/six-*.json} \
        $([ $command = claims ] || echo baseline=bn_x30) output="$output/tiny_imagenet_100/crops"
done

# Seed 0 at 64 pixels and full width, as far as the runs came on a GPU.
"$python" -m bn_inception compare "$photographs"/full_width/runs/* \
    output="$output/tiny_imagenet_100/full_width"
"$python" experiments/at_equal_steps.py "$output/tiny_imagenet_100/full_width/at_equal_steps" \
    "$photographs"/runs "$photographs"/full_width/runs

"$python" experiments/cost.py "$output/tiny_imagenet_100/cost" \
    "the recipes and the controls=$photographs/runs" "BN-x5 with dropout=$photographs/dropout/runs" \
    "the factor of the rate=experiments/rate_factor/runs" "other rates=$photographs/rate/runs" \
    "other lengths=$photographs/length/runs" \
    "other initial weights=$photographs/initialization/runs" \
    "one modification at a time=$photographs/modifications/runs" \
    "Figure 4, without its evaluations=$photographs/crops/runs" \
    "the probe=$photographs/probe/runs" "full width=$photographs/full_width/runs"

"$python" experiments/figure1.py results/mnist/figure1.json "$output/mnist"
