#!/usr/bin/env bash
# The effect in minutes: plain Inception and BN-x5 on the embedded images, then the comparison.
# Both make the first 1,000 steps of their runs at this scale.
# Stopped, it continues where it was when started again.
set -eu
cd "$(dirname "$0")/.."
command=${BN_INCEPTION:-.venv/bin/bn-inception}
for recipe in inception bn_x5; do
    "$command" train recipe=$recipe scale=demo data=synthetic run.resume=auto \
        train.steps=1000 train.evaluate_every=100
done
"$command" compare outputs/inception-demo-synthetic-seed0 outputs/bn_x5-demo-synthetic-seed0 \
    output=outputs/demo
echo
echo "table:       outputs/demo/comparison.md"
echo "figure:      outputs/demo/figure2.png (and .svg)"
echo "TensorBoard: PYTHON=.venv/bin/python scripts/tensorboard.sh outputs"
