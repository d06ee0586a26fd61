"""`scripts/setup.sh` and `scripts/slurm_train.sh` against stand-ins for the commands they call."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def stand_in(path, body):
    """A command that does what `body`, for bash, does."""
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)
    return str(path)


def set_up(tmp_path, python, **environment):
    """What the set-up says when it fails, and that it has not marked anything as installed."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPTS / "setup.sh", tmp_path / "scripts")
    result = subprocess.run(
        ["bash", str(tmp_path / "scripts" / "setup.sh")],
        env={**os.environ, "PYTHON": python, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert not (tmp_path / ".venv" / ".installed").exists()
    return result.stderr


CREATES_A_VENV = """
[ "$1 $2" = "-m venv" ] && { mkdir -p "$3/bin"; cp "$PIP" "$3/bin/python"; }
[ "$1" = --version ] && echo "Python 3.12.0"
exit 0
"""


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('[[ "$*" == *version_info* ]] && exit 1; echo Python 3.9.2', "3.9.2: too old"),
        ('[[ "$*" == *ensurepip* ]] && exit 1; exit 0', "apt-get install python3-venv"),
        ('[[ "$*" == "-m venv"* ]] && exit 1; exit 0', ".venv could not be created"),
        (None, "nowhere: not found; install Python 3.11"),
    ],
)
def test_what_python_lacks_is_named(tmp_path, body, says):
    assert says in set_up(tmp_path, stand_in(tmp_path / "python", body) if body else "nowhere")


@pytest.mark.parametrize(
    ("pip_says", "says"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: No matching distribution found for torch", "cannot reach a package registry"),
        ("something else", "its last lines are above"),
    ],
)
def test_what_stops_pip_is_named(tmp_path, pip_says, says):
    pip = stand_in(tmp_path / "pip", f"echo '{pip_says}' >&2\nexit 1")
    said = set_up(tmp_path, stand_in(tmp_path / "python", CREATES_A_VENV), PIP=pip)
    assert pip_says in said and says in said


def test_a_disk_that_is_too_small_is_found_before_anything_is_downloaded(tmp_path):
    commands = tmp_path / "commands"
    commands.mkdir()
    stand_in(commands / "df", "echo 'Filesystem'\necho 'disk 9 9 3145728 1% /'")
    python = stand_in(tmp_path / "python", CREATES_A_VENV)
    said = set_up(tmp_path, python, PATH=f"{commands}:{os.environ['PATH']}")
    assert "3 GiB free here, 8 GiB needed" in said
    assert not (tmp_path / ".venv").exists()


SLURM = SCRIPTS / "slurm_train.sh"


@pytest.fixture
def slurm(tmp_path):
    """An environment whose SLURM writes what it is asked into a file."""
    commands = {
        "scontrol": 'if [ "$1" = show ]; then printf "node7\\nnode8\\n"; '
        'else echo "scontrol $*" >>"$SAID"; fi',
        "scancel": 'echo "scancel $*" >>"$SAID"; kill "$(cat "$SAID.pid")"',
        "srun": 'echo $$ >"$SAID.pid"; trap "exit 143" TERM; echo "srun $*" >>"$SAID"; '
        'for i in $(seq "$TENTHS"); do sleep 0.1; done; exit "$STATUS"',
    }
    for name, body in commands.items():
        stand_in(tmp_path / name, body)
    return {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SAID": str(tmp_path / "said"), "TENTHS": "0", "STATUS": "0", "SLURM_JOB_ID": "20123",
        "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4",
    }  # fmt: skip


def said(slurm):
    path = Path(slurm["SAID"])
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("status", [0, 1])
def test_its_status_is_trainings_and_it_ends(slurm, status):
    slurm["STATUS"] = str(status)
    ended = subprocess.run(["bash", SLURM, "recipe=bn_x30"], env=slurm, timeout=60)
    assert ended.returncode == status
    line = said(slurm)
    for part in ("--nnodes=2", "--nproc-per-node=4", "--rdzv-endpoint=node7:20123",
                 "scripts/train.py run.resume=auto recipe=bn_x30"):  # fmt: skip
        assert part in line
    assert "requeue" not in line


def test_out_of_time_it_stops_training_and_goes_back_into_the_queue(slurm):
    slurm["TENTHS"] = "600"
    job = subprocess.Popen(["bash", SLURM, "recipe=bn_x30"], env=slurm)
    deadline = time.monotonic() + 30
    while "srun" not in said(slurm) and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) == 0
    lines = said(slurm).splitlines()
    assert lines[1:] == ["scancel --signal=TERM 20123", "scontrol requeue 20123"]


def test_outside_a_job_it_says_how_it_is_used():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    ended = subprocess.run(
        ["bash", SLURM, "recipe=bn_x30"], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 2 and "usage: sbatch" in ended.stderr
