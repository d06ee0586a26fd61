#!/usr/bin/env bash
# One run on one or several SLURM nodes, one process for each GPU; requeued where its time ran out.
#   sbatch --nodes=2 --gpus-per-node=4 scripts/slurm_train.sh recipe=bn_x30 scale=paper ...
# Two minutes before the limit SLURM sends TERM to this script, which hands it on; training saves and
# ends, the job goes back into the queue, and run.resume=auto continues it. See docs/cluster.md.
#SBATCH --job-name=bn-inception
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -u
if [ $# -eq 0 ] || [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "usage: sbatch [options] scripts/slurm_train.sh key=value ..." >&2
    exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}" || exit 1
python=${PYTHON:-.venv/bin/python}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# One rendezvous a job: two jobs on one node must not meet.
port=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
processes=${PROCESSES_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}

ending=
srun --kill-on-bad-exit=1 "$python" -m torch.distributed.run \
    --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="$processes" \
    --rdzv-backend=c10d --rdzv-endpoint="$head:$port" --rdzv-id="$SLURM_JOB_ID" \
    scripts/train.py run.resume=auto "$@" &
steps=$!
# To the steps alone; torchrun, one on each node, hands TERM on to its processes.
trap 'ending=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM
# A trapped signal ends the wait, not the steps.
wait "$steps"
status=$?
while kill -0 "$steps" 2>/dev/null; do
    wait "$steps"
    status=$?
done
if [ -n "$ending" ] && [ "$status" -ne 0 ]; then
    echo "slurm_train: out of time, saved; back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$status"
