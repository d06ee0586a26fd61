#!/usr/bin/env bash
# Everything that needs a GPU, in one go: the speed of a step, tests, resume, data-parallel training,
# and the recipes at scale=small side by side on the one GPU, for as long as the time allows.
#   scripts/gpu.sh TINY_IMAGENET OUTPUT [MINUTES] [key=value ...]
# Called again with the same arguments it goes on: finished stages are passed over, runs continue.
# A stage that fails does not stop the others; the exit status says whether one did. The key=value are
# for training. SIDE is how many runs share the GPU (5). REHEARSAL=1 does the same on the CPU with
# numbers so small that it takes minutes.
set -u
if [ $# -lt 2 ] || ! [ -d "$1/train" ]; then
    echo "usage: scripts/gpu.sh TINY_IMAGENET OUTPUT [MINUTES] [key=value ...]" >&2
    exit 2
fi
data=$(cd "$1" && pwd)
mkdir -p "$2"
output=$(cd "$2" && pwd)
minutes=${3:-25}
shift 2
[ $# -gt 0 ] && shift
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python}
until=$(($(date +%s) + minutes * 60))
images=(data=tiny_imagenet "data.root=$data" data.workers=2)
if [ -n "${REHEARSAL:-}" ]; then
    machine=(machine=cpu)
    verified=(scale=demo scale.image_size=16 scale.width=0.0625 batch.images=8)
    scale=(scale=demo scale.image_size=16 scale.width=0.0625 data.first_classes=4)
    scale+=(train.steps=6 train.evaluate_every=3 train.log_every=1)
    step=(scale=demo scale.image_size=16 'benchmark.batches=[4]' benchmark.steps=1 benchmark.rounds=2)
    input=(benchmark.images=64 benchmark.rounds=1 'benchmark.workers=[0]' benchmark.image_size=32)
    curve=(train.steps=6)
    seeds=(0)
    profiled=(scale=demo scale.image_size=16 batch.images=4)
    compiled=()
else
    machine=(machine=gpu)
    verified=(scale=demo)
    scale=(scale=small)
    step=(scale=paper 'benchmark.batches=[32]' machine.compile=true)
    input=(benchmark.images=8192 benchmark.rounds=3)
    curve=(train.steps=2000 train.evaluate_every=1000)
    seeds=(0 1 2)
    profiled=(scale=paper)
    compiled=(machine.compile=true)
fi
training=("${machine[@]}" "${scale[@]}" "${images[@]}" run.root="$output/runs" run.resume=auto "$@")
failures=$(mktemp)
trap 'rm -f "$failures"' EXIT

# stage NAME COMMAND...: once, within the time, its output in OUTPUT/NAME.txt.
stage() {
    local name=$1 left=$((until - $(date +%s)))
    shift
    if [ -e "$output/$name.done" ] || [ "$left" -le 0 ]; then return; fi
    echo "== $name ($left s left)"
    if timeout --signal=TERM --kill-after=30 "$left" "$@" >"$output/$name.txt" 2>&1; then
        touch "$output/$name.done"
    else
        echo "$name: status $?; the end of $output/$name.txt:" >&2
        tail -n 5 "$output/$name.txt" >&2
        echo "$name" >>"$failures"
    fi
}

# run RECIPE SEED: TERM saves it where the time ends; the next call continues.
run() {
    local left=$((until - $(date +%s)))
    [ "$left" -gt 0 ] || return
    timeout --signal=TERM --kill-after=60 "$left" "$python" -m bn_inception train recipe="$1" \
        run.seed="$2" "${training[@]}" >>"$output/$1-seed$2.txt" 2>&1
    # A stopped run is no failure: 143 where it was saved, 124 from timeout.
    local status=$?
    case $status in 0 | 124 | 143) ;; *) echo "$1, seed $2" >>"$failures" ;; esac
    echo "== $1, seed $2: status $status"
}

# What is timed has the machine for itself.
stage step "$python" -m bn_inception benchmark step "${machine[@]}" "${step[@]}" \
    output="$output/step.json"
stage profile "$python" experiments/step_profile.py "${machine[@]}" "${profiled[@]}"
stage profile_compiled "$python" experiments/step_profile.py "${machine[@]}" "${profiled[@]}" \
    machine.precision=bf16 "${compiled[@]}"

# The checks, one after the other, beside the recipes: small steps leave most of the GPU idle.
{
    stage environment "$python" -m torch.utils.collect_env
    stage tests "$python" -m pytest -q -p no:cacheprovider -k cuda \
        tests/data/test_photometric.py tests/training/test_batches.py
    # Bit for bit where every kernel is deterministic; as trained, the first step that differs is told.
    stage resume_deterministic "$python" -m bn_inception verify-resume recipe=bn_x30 \
        "${verified[@]}" "${machine[@]}" machine.deterministic=true
    stage resume_as_trained "$python" -m bn_inception verify-resume recipe=bn_x30 \
        "${verified[@]}" "${machine[@]}"
    stage one_rank "$python" -m torch.distributed.run --standalone --nproc-per-node=1 \
        scripts/train.py recipe=bn_x5 run.name=one_rank "${training[@]}" train.steps=6 \
        train.evaluate_every=3
} &
# The longest first; then the next seed.
for seed in "${seeds[@]}"; do
    for recipe in inception bn_baseline bn_x5 bn_x30 bn_x5_sigmoid inception_x5 inception_sigmoid; do
        while [ "$(jobs -rp | wc -l)" -gt "${SIDE:-5}" ]; do wait -n; done
        [ "$(date +%s)" -lt "$until" ] || break 2
        run "$recipe" "$seed" &
    done
done
wait
if compgen -G "$output/runs/*-seed*" >/dev/null; then
    "$python" -m bn_inception compare "$output"/runs/*-seed* output="$output/comparison" ||
        echo comparison >>"$failures"
fi

# With the time that is left.
stage plan "$python" -m bn_inception plan "${machine[@]}" "${scale[@]}" "${images[@]}" \
    output="$output/plan.json"
stage input "$python" -m bn_inception benchmark input "${images[@]:0:2}" "${input[@]}" \
    output="$output/input.json"
stage precision "$python" experiments/precision_curves.py run.root="$output/precision" \
    output="$output/precision.json" recipe=bn_x30 "${machine[@]}" "${scale[@]}" "${images[@]}" \
    "${curve[@]}" "$@"
if [ -s "$failures" ]; then
    echo "failed: $(paste -sd, "$failures")" >&2
    exit 1
fi
