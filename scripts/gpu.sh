#!/usr/bin/env bash
# Everything that needs a GPU, in one go: speeds, data-parallel training, resume, number formats, and
# the seven recipes at scale=small side by side on the one GPU, for as long as the time allows.
#   scripts/gpu.sh TINY_IMAGENET OUTPUT [MINUTES] [key=value ...]
# Called again with the same arguments it goes on: finished stages are passed over, runs continue.
# A stage that fails does not stop the others; the exit status says whether one did. The key=value are
# for training. REHEARSAL=1 does the same on the CPU with numbers so small that it takes minutes.
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
export PYTHON="$python"
until=$(($(date +%s) + minutes * 60))
images=(data=tiny_imagenet "data.root=$data")
if [ -n "${REHEARSAL:-}" ]; then
    machine=(machine=cpu)
    verified=(scale=demo scale.image_size=16 scale.width=0.0625 batch.images=8)
    scale=(scale=demo scale.image_size=16 scale.width=0.0625 data.first_classes=4)
    scale+=(train.steps=6 train.evaluate_every=3 train.log_every=1)
    step=(scale=demo scale.image_size=16 'benchmark.batches=[4]' benchmark.steps=1 benchmark.rounds=2)
    input=(benchmark.images=64 benchmark.rounds=1 'benchmark.workers=[0]' benchmark.image_size=32)
    curve=(train.steps=6)
else
    machine=(machine=gpu)
    verified=(scale=demo)
    scale=(scale=small)
    step=(scale=paper)
    input=(benchmark.images=8192 benchmark.rounds=3)
    curve=(train.steps=2000 train.evaluate_every=1000)
fi
failed=0

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
        failed=1
    fi
}

stage environment "$python" -m torch.utils.collect_env
stage step "$python" -m bn_inception benchmark step "${machine[@]}" "${step[@]}" \
    output="$output/step.json"
stage input "$python" -m bn_inception benchmark input "${images[@]}" "${input[@]}" \
    output="$output/input.json"
stage one_rank "$python" -m torch.distributed.run --standalone --nproc-per-node=1 scripts/train.py \
    recipe=bn_x5 run.name=one_rank run.root="$output/runs" run.resume=auto \
    "${machine[@]}" "${scale[@]}" "${images[@]}" "$@" train.steps=6 train.evaluate_every=3
# Bit for bit where every kernel is deterministic; as trained, the first step that differs is told.
stage resume_deterministic "$python" -m bn_inception verify-resume recipe=bn_x30 "${verified[@]}" \
    "${machine[@]}" machine.deterministic=true
stage resume_as_trained "$python" -m bn_inception verify-resume recipe=bn_x30 "${verified[@]}" \
    "${machine[@]}"
stage precision "$python" experiments/precision_curves.py run.root="$output/precision" \
    output="$output/precision.json" recipe=bn_x30 "${machine[@]}" "${scale[@]}" "${images[@]}" \
    "${curve[@]}" "$@"
stage plan "$python" -m bn_inception plan "${machine[@]}" "${scale[@]}" "${images[@]}" \
    output="$output/plan.json"

# Side by side: small steps leave most of the GPU idle. TERM saves; the next call continues.
left=$((until - $(date +%s)))
if [ "$left" -gt 0 ]; then
    echo "== Figure 3 ($left s left)"
    timeout --signal=TERM --kill-after=60 "$left" \
        "$python" -m bn_inception train -m hydra/launcher=joblib hydra.launcher.n_jobs=5 \
        recipe=inception,bn_x5,bn_x30,bn_x5_sigmoid,inception_x5,bn_baseline,inception_sigmoid \
        run.root="$output/runs" data.workers=2 \
        "${machine[@]}" "${scale[@]}" "${images[@]}" "$@" >"$output/figure3.txt" 2>&1 || failed=1
fi
if compgen -G "$output/runs/*-seed0*" >/dev/null; then
    "$python" -m bn_inception compare "$output"/runs/*-seed0* output="$output/comparison" || failed=1
fi
exit "$failed"
