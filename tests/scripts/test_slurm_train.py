"""The SLURM script against stand-ins for SLURM's commands: what it starts, and when it requeues."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm_train.sh"


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment whose SLURM writes what it is asked into a file."""
    commands = {
        "scontrol": 'if [ "$1" = show ]; then printf "node7\\nnode8\\n"; '
        'else echo "scontrol $*" >>"$SAID"; fi',
        "scancel": 'echo "scancel $*" >>"$SAID"; kill "$(cat "$SAID.pid")"',
        "srun": 'echo $$ >"$SAID.pid"; trap "exit 143" TERM; echo "srun $*" >>"$SAID"; '
        'for i in $(seq "$TENTHS"); do sleep 0.1; done; exit "$STATUS"',
    }
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SAID": str(tmp_path / "said"),
        "TENTHS": "0",
        "STATUS": "0",
        "SLURM_JOB_ID": "20123",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
    }


def said(slurm: dict[str, str]) -> str:
    path = Path(slurm["SAID"])
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("status", [0, 1])
def test_its_status_is_trainings_and_it_ends(slurm: dict[str, str], status: int) -> None:
    slurm["STATUS"] = str(status)
    ended = subprocess.run(["bash", SCRIPT, "recipe=bn_x30"], env=slurm, timeout=60)
    assert ended.returncode == status
    line = said(slurm)
    for part in ("--nnodes=2", "--nproc-per-node=4", "--rdzv-endpoint=node7:20123",
                 "scripts/train.py run.resume=auto recipe=bn_x30"):  # fmt: skip
        assert part in line
    assert "requeue" not in line


def test_out_of_time_it_stops_training_and_goes_back_into_the_queue(slurm: dict[str, str]) -> None:
    slurm["TENTHS"] = "600"
    job = subprocess.Popen(["bash", SCRIPT, "recipe=bn_x30"], env=slurm)
    deadline = time.monotonic() + 30
    while "srun" not in said(slurm) and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) == 0
    lines = said(slurm).splitlines()
    assert lines[1:] == ["scancel --signal=TERM 20123", "scontrol requeue 20123"]


def test_outside_a_job_it_says_how_it_is_used() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    ended = subprocess.run(
        ["bash", SCRIPT, "recipe=bn_x30"], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 2 and "usage: sbatch" in ended.stderr
