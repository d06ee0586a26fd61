"""A prepare that was killed or stopped goes on; processes of the work end with it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from samples import content, made, opened

from bn_inception.data import DataKind
from bn_inception.data.intake import prepare as module
from bn_inception.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and file locks")

SLOW = """
import signal, sys, time
from bn_inception.cli.main import main
from bn_inception.data import FolderSource

# Ignored where the tests run in the background of a shell, and that would be inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
read = FolderSource.read
FolderSource.read = lambda self, index: (time.sleep(float(sys.argv[1])), read(self, index))[1]
main(["prepare", *sys.argv[2:], "shard_size=4", "workers=2"])
"""


def slow(images: Path, target: Path, seconds: float) -> "subprocess.Popen[str]":
    """A prepare in a process group of its own that takes so long for each image."""
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(seconds), f"source={images}", f"target={target}"],
        cwd=Path(__file__).resolve().parents[2],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def living(group: int) -> bool:
    """Whether a process of the group runs; a zombie is one that no init has waited for."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, own = path.read_text().rpartition(") ")[2].split()[:3]
            if int(own) == group and state != "Z":
                return True
    return False


@pytest.mark.timeout(400)
def test_a_killed_prepare_goes_on_and_ends_with_the_same_bytes(
    images: Path, tmp_path: Path
) -> None:
    made(images, tmp_path / "undisturbed")
    target = tmp_path / "killed"
    process = slow(images, target, 0.05)
    try:
        while not list(target.glob("train-*.tar")):
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    while living(process.pid):  # its workers notice, and end
        time.sleep(0.1)
    with pytest.raises(UserError, match="no finished shards"):
        opened(target, DataKind.shards)
    (target / "train-000001.tar").unlink(missing_ok=True)
    (target / "train-000002.tar").write_bytes(b"")  # of another size: not whole
    kept = {path: path.stat().st_mtime_ns for path in target.glob("train-*[03].tar")}
    train, _ = made(images, target)
    assert kept and train.written >= 8
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert content(target) == content(tmp_path / "undisturbed")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_ends_prepare_at_once_however_often_it_comes(
    images: Path, tmp_path: Path, times: int
) -> None:
    target = tmp_path / "shards"
    process = slow(images, target, 20)
    try:
        while len(list(target.glob(".train-*.tmp"))) < 2:  # both are at work
            assert process.poll() is None
            time.sleep(0.02)
        for _ in range(times):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.3)
        _, said = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if times == 1:  # more may come when Python itself is at its end
        assert process.returncode == 130
        assert said == "stopped; the same call goes on from here: what is finished is kept\n"
    assert list(target.glob(".*.tmp"))  # of the killed workers
    made(images, target)
    assert not list(target.glob(".*.tmp"))


@pytest.mark.parametrize("last", ["train.index.npy", "train.sha256"])
def test_a_prepare_killed_as_it_finishes_goes_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    target = tmp_path / "shards"
    made(images, tmp_path / "undisturbed")
    replacing = module.replacing

    def killed(path: Path) -> object:
        if path.name == last:
            raise SystemExit
        return replacing(path)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(module, "replacing", killed)
        made(images, target)
    with pytest.raises(UserError, match="shard_size is 5 here, 4 there"):
        made(images, target, shard_size=5)
    train, _ = made(images, target)
    assert train.written == 0
    assert content(target) == content(tmp_path / "undisturbed")
