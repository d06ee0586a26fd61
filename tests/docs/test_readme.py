"""README.md: its commands run as they are printed, one after the other."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from bn_inception.cli.main import dispatch

README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
SHORT = "train.steps=4 train.evaluate_every=2 train.log_every=1 machine.threads=1 data.workers=0"


def commands(heading):
    """The shell block under a heading."""
    found = re.search(rf"^## {heading}\n.*?^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    return found[1]


SHELL = f"""
set -eu
bn-inception() {{
    if [ "$1" = train ]; then set -- "$@" {SHORT}; fi
    printf '%q ' "$@"
    echo
    read -r status
    return "$status"
}}
"""


@pytest.mark.timeout(600)
def test_the_chain_runs(tmp_path, monkeypatch, capsys):
    """A shell reads the block and expands it; each command runs here, trainings short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))  # where the images are drawn
    Image.linear_gradient("L").save("photo.jpg")
    script = SHELL + commands("From the first run to a verdict")
    pipe = subprocess.PIPE
    with subprocess.Popen(["bash", "-c", script], stdin=pipe, stdout=pipe, text=True) as shell:
        for line in shell.stdout:
            print(dispatch(shlex.split(line)), file=shell.stdin, flush=True)
    assert shell.returncode == 0  # it stops at the first command that fails
    made = {"comparison/report.html", "six.npz", "bn_x5", "outputs/bn_x5-demo-synthetic-seed2"}
    assert all(Path(name).exists() for name in made)
    printed = capsys.readouterr().out
    assert "BN-x5" in printed and "not tested" in printed


@pytest.mark.parametrize(
    "line",
    [
        line
        for heading in ("Data and machines", "ImageNet on your machine")
        for line in commands(heading).splitlines()
        if line.startswith(("bn-inception", "torchrun"))
    ],
)
def test_what_needs_imagenet_is_at_least_accepted(line, monkeypatch, capsys):
    words = shlex.split(line)
    if words[0] == "torchrun":
        words = ["", "train", *words[words.index("scripts/train.py") + 1 :]]
    assert dispatch([*words[1:], "--cfg", "job"]) == 0
    assert words[-1].partition("=")[2] in capsys.readouterr().out
