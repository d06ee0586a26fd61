"""README.md: its commands run as they are printed, one after the other."""

import os
import re
import shlex
import subprocess
import threading
from pathlib import Path

import pytest
from PIL import Image

from bn_inception.cli.main import dispatch

README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
SHORT = "train.steps=4 train.evaluate_every=2 train.log_every=1 machine.threads=1 data.workers=0"


def commands(heading: str) -> str:
    """The shell block under a heading."""
    found = re.search(rf"^## {heading}\n.*?^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


SHELL = f"""
set -eu
bn-inception() {{
    if [ "$1" = train ]; then set -- "$@" {SHORT}; fi
    printf '%s\\0' "$@" >request
    read -r status <reply
    return "$status"
}}
"""


def _ended(shell: subprocess.Popen[bytes]) -> None:
    if shell.wait() > 0:
        Path("request").write_bytes(b"")


@pytest.mark.timeout(600)
def test_the_chain_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shell reads the block and expands it; each command runs here, trainings short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))  # where the images are drawn
    Image.linear_gradient("L").save("photo.jpg")
    for name in ("request", "reply"):
        os.mkfifo(name)
    script = SHELL + commands("From the first run to a verdict") + "printf '' >request\n"
    shell = subprocess.Popen(["bash", "-c", script], start_new_session=True)
    failed = []
    try:
        # The end of the block is an empty request; so is that of a shell that fails.
        threading.Thread(target=_ended, args=(shell,), daemon=True).start()
        while request := Path("request").read_bytes():
            words = request.decode().split("\0")[:-1]
            status = dispatch(words)
            if status:
                failed.append(shlex.join(words))
            Path("reply").write_text(f"{status}\n")
    finally:
        shell.kill()
    assert failed == []
    for made in (
        "comparison/report.html",
        "six.npz",
        "bn_x5",
        "outputs/bn_x5-demo-synthetic-seed2",
    ):
        assert Path(made).exists(), made
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
def test_what_needs_imagenet_is_at_least_accepted(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(line)
    if words[0] == "torchrun":
        words = ["", "train", *words[words.index("scripts/train.py") + 1 :]]
    assert dispatch([*words[1:], "--cfg", "job"]) == 0
    assert words[-1].partition("=")[2] in capsys.readouterr().out
