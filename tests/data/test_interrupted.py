"""A prepare that was killed or stopped goes on; processes of the work end with it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from imagenets import content, made

from bn_inception.data import DataConfig, DataKind, open_sources
from bn_inception.data.intake import marked
from bn_inception.data.intake.packing import Job
from bn_inception.data.parallel import produced
from bn_inception.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and file locks")

REPOSITORY = Path(__file__).resolve().parents[2]


SLOW = """
import sys, time
from bn_inception.data import FolderSource
from bn_inception.data.intake import prepare as module

read = FolderSource.read
FolderSource.read = lambda self, index: (time.sleep(0.05), read(self, index))[1]
config = module.PrepareConfig(sys.argv[1], sys.argv[2], shard_size=4, workers=2)
module.prepare(config, print, lambda what, done, total: None)
"""


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
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(images), str(target)],
        cwd=REPOSITORY,
        start_new_session=True,
    )
    try:
        while not list(target.glob("train.partial/0*.json")):
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in target.glob("train-*.tar")}
    assert 0 < len(kept) < 4
    assert not (target / "train.json").exists()
    with pytest.raises(UserError, match=r"has no train\.json"):
        open_sources(DataConfig(DataKind.shards, str(target)))
    train, _ = made(images, target)
    assert 0 < train.written < 15
    recorded = [name for name in kept if (target / name).stat().st_mtime_ns == kept[name]]
    assert recorded  # not written again
    while living(process.pid):  # its workers notice, and end
        time.sleep(0.1)
    made(images, target)
    assert content(target) == content(tmp_path / "undisturbed")


INTERRUPTED = """
import signal, sys, time
from bn_inception.cli.main import main
from bn_inception.data.intake.recompression import Recompression

# Ignored where the tests run in the background of a shell, and that would be inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
# As long as a shard of large images to encode again.
Recompression.encode = lambda self, data, name: (time.sleep(20), data)[1]
main(["prepare", *sys.argv[1:], "shorter_side=20", "shard_size=4", "workers=2"])
"""


@pytest.mark.timeout(400)
@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_ends_prepare_at_once_however_often_it_comes(
    images: Path, tmp_path: Path, times: int
) -> None:
    target = tmp_path / "shards"
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, f"source={images}", f"target={target}"],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while len(list(target.glob("train.partial/.train-*.tmp"))) < 2:  # both are at work
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
        assert not list(target.glob(".*.tmp"))
    made(images, target, shorter_side=20)
    assert not list(target.glob("**/.*.tmp"))


def test_a_prepare_killed_as_it_begins_all_shards_again_goes_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "shards"
    made(images, target)
    before = content(target)
    (target / "train.index" / "offset.npy").write_bytes(b"")
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        if path.name == "train.json":
            raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Path, "unlink", killed)
        made(images, target)
    assert not (target / "train.json").exists()
    train, _ = made(images, target)
    assert train.written == 15
    assert content(target) == before


def test_what_a_killed_call_had_no_time_to_remove_is_removed(images: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    made(images, target)
    before = content(target)
    for name in ("spool", "val.partial"):
        marked.make(target / name)
        (target / name / "class").mkdir()
        (target / name / "class" / "1.jpg").touch()
        (target / name / ".val-000000.tar.77.tmp").touch()
    made(images, target)
    assert content(target) == before
    assert not (target / "spool").exists() and not (target / "val.partial").exists()


def test_a_damaged_shard_of_a_begun_prepare_is_made_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "shards"
    made(images, tmp_path / "undisturbed")

    def stop(job: object, *more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Job, "finish", stop)
        made(images, target)
    (target / "train-000000.tar").write_bytes(b"")
    (target / "train.partial" / "000001.json").write_text('{"bytes"')
    left_over = target / "train.partial" / ".train-000000.tar.77.tmp"
    left_over.touch()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Job, "write", stop)
        made(images, target)
    assert not left_over.exists()
    train, _ = made(images, target)
    assert train.written == 8
    assert content(target) == content(tmp_path / "undisturbed")


def _double(number: int) -> int:
    if number == 7:
        raise UserError("seven")
    if number == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def test_work_is_spread_and_its_errors_come_back() -> None:
    for workers in (0, 2):
        assert sorted(produced(_double, iter(range(7)), workers)) == list(range(0, 14, 2))
        with pytest.raises(UserError, match="seven"):
            list(produced(_double, [1, 7], workers))
    with pytest.raises(UserError, match="died"):
        list(produced(_double, [1, 8, 2], 2))
