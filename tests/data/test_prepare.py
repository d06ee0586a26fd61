"""Making shards: a kill costs little, nothing of the user's is removed, bad input is named."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from processes import run_ranks
from samples import WNIDS, content, made, opened, refused, shards_of, silent

from bn_inception.cli.main import dispatch
from bn_inception.data import DataKind
from bn_inception.data.intake import archives
from bn_inception.data.intake.prepare import PrepareConfig, prepare
from bn_inception.errors import UserError
from bn_inception.files import locked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and file locks")


@pytest.fixture
def target(images, tmp_path):
    """Finished shards of the images."""
    return shards_of(images, tmp_path / "shards")


def test_folders_become_shards(images, tmp_path, capsys):
    train, val = made(images, tmp_path / "shards")
    assert (train.images, train.shards, train.written) == (15, 4, 15)
    assert (val.images, val.shards) == (9, 3)
    kinds = {f"{s}{end}" for s in ("train", "val") for end in (".json", ".sha256", ".index.npy")}
    shards = {*(f"train-00000{n}.tar" for n in range(4)), *(f"val-00000{n}.tar" for n in range(3))}
    assert set(content(tmp_path / "shards")) == shards | kinds
    other = tmp_path / "other"
    given = ["prepare", f"source={images}", f"target={other}", "workers=2", "shard_size=4"]
    assert dispatch(given) == 0
    assert content(tmp_path / "shards") == content(other)
    out, err = capsys.readouterr()
    assert "train: 15 images in 4 shards" in out
    assert re.search(r"15 images written in [\d.]+ s: [\d,]+ images/s", out)
    assert f"data=shards data.root={other}" in out and err == ""
    assert dispatch(given) == 0
    assert "all there, checksums right" in capsys.readouterr().out


def test_one_split_alone_and_the_other_later(images, downloads, tmp_path):
    made(images, tmp_path / "one")
    (downloads / archives.VAL_TAR).rename(tmp_path / "later")
    assert [done.split for done in made(downloads, tmp_path / "other")] == ["train"]
    (tmp_path / "later").rename(downloads / archives.VAL_TAR)
    train, val = made(downloads, tmp_path / "other")
    assert (train.written, val.written) == (0, 9)
    assert content(tmp_path / "one") == content(tmp_path / "other")
    shutil.rmtree(images / "val")
    assert [done.split for done in made(images, tmp_path / "third")] == ["train"]


def test_a_shard_made_again_of_changed_images_is_not_put_in_place(images, target):
    shard = target / "train-000001.tar"
    shard.unlink()
    before = content(target)
    for path in (images / "train").glob("*/*"):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert "the source has changed" in refused(images, target)
    assert content(target) == before


@pytest.mark.parametrize("lost", [Path.unlink, lambda path: path.write_text('{"format": "bn')])
def test_a_lost_description_is_refused_with_what_helps(images, target, lost):
    before = content(target)
    path = target / "train.json"
    lost(path)
    said = refused(images, target)
    assert str(path.name) in said and "bn-inception prepare" not in said
    assert f"remove {path} and {target}/train-*.tar" in said
    path.unlink(missing_ok=True)
    for shard in target.glob("train-*.tar"):
        shard.unlink()
    made(images, target)
    assert content(target) == before


def test_what_else_lies_in_the_target_stays(images, tmp_path):
    target = tmp_path / "shards"
    (target / "train").mkdir(parents=True)
    for name in ("train/thesis.txt", "notes.part", ".hidden.77.tmp", ".train.txt", "train.txt"):
        (target / name).write_text("years of work")
    before = content(target)
    made(images, target)
    made(images, target)
    assert before.items() <= content(target).items()


def flip(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"flipped")


def test_damage_is_found_named_and_mended(images, target):
    before = content(target)
    said: list[str] = []
    config = PrepareConfig(str(images), str(target), shard_size=4, workers=0)

    def mended():
        said.clear()
        written = [done.written for done in prepare(config, said.append, silent)]
        assert content(target) == before
        return written

    flip(target / "train-000001.tar", 700)
    (target / "val-000002.tar").unlink()
    assert mended() == [4, 1]
    mended_shards = [re.findall(r"(\S+) was missing or damaged", line) for line in said]
    assert mended_shards == [[f"{target}/train-000001.tar"], [f"{target}/val-000002.tar"]]
    flip(target / "train.index.npy", 200)
    (target / "train.sha256").unlink()
    (target / "val.sha256").write_text("junk")
    assert mended() == [0, 0]


def test_other_images_or_settings_are_refused(images, target, tmp_path):
    text = refused(images, target, shard_size=5)
    assert "shard_size is 5 here, 4 there" in text and "choose another folder" in text
    before = content(target)
    path = next((images / "train" / WNIDS[0]).iterdir())
    path.write_bytes(path.read_bytes() + b"x")
    assert "fingerprint is" in refused(images, target)
    assert content(target) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "train-000000.tar").write_bytes(b"somebody's")
    assert "not of this program" in refused(images, other)
    assert content(other) == {"train-000000.tar": b"somebody's"}


def test_two_at_once_are_kept_apart(images, tmp_path):
    target = tmp_path / "shards"
    target.mkdir()
    with locked(target / ".lock"):  # the lock is a process's own: a fork has it not
        (said,) = run_ranks(1, lambda rank: refused(images, target))
    assert "being written by another process" in said
    made(images, target)


def test_a_full_disk_is_named_before_anything_is_written_and_while_it_is(
    images, tmp_path, monkeypatch
):
    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=20_000))
    text = refused(images, tmp_path / "shards")
    assert "needs up to 0.0 GB more, 0.0 GB are free" in text
    assert content(tmp_path / "shards") == {}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=200_000))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        assert "No space left on device" in refused(images, tmp_path / "shards")
    assert not any(name.startswith(".") for name in content(tmp_path / "shards"))
    made(images, tmp_path / "shards")


def test_a_source_that_is_none_or_several_is_named(images, tmp_path):
    assert "is not a folder; expected train/" in refused(tmp_path / "no", tmp_path / "shards")
    assert not (tmp_path / "shards").exists()
    (tmp_path / "empty").mkdir()
    assert "holds nothing of the kind" in refused(tmp_path / "empty", tmp_path / "shards")
    (images / archives.TRAIN_TAR).touch()
    assert "holds several of these" in refused(images, tmp_path / "shards")
    (images / archives.TRAIN_TAR).unlink()
    (images / "val" / WNIDS[0]).rename(images / "val" / "x")
    text = refused(images, tmp_path / "shards")
    assert text.startswith("source: ") and "data.root" not in text


@pytest.mark.parametrize(
    ("key", "value"), [("shard_size", 0), ("workers", -1), ("source", ""), ("target", " ")]
)
def test_settings_are_checked(key, value):
    with pytest.raises(UserError, match=rf"^{key}: (0 is not|-1 is not|empty)"):
        PrepareConfig(**{"source": "a", "target": "b", key: value})


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


def slow(images, target, seconds):
    """A prepare in a process group of its own that takes so long for each image."""
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(seconds), f"source={images}", f"target={target}"],
        cwd=Path(__file__).resolve().parents[2],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.timeout(400)
def test_a_killed_prepare_goes_on_and_ends_with_the_same_bytes(images, tmp_path):
    made(images, tmp_path / "undisturbed")
    target = tmp_path / "killed"
    process = slow(images, target, 0.05)
    try:
        while not list(target.glob("train-*.tar")):
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()  # until its workers, who have its standard error, notice and end
    with pytest.raises(UserError, match="no finished shards"):
        opened(target, DataKind.shards)
    assert "shard_size is 5 here, 4 there" in refused(images, target, shard_size=5)
    (target / "train-000001.tar").unlink(missing_ok=True)
    (target / "train-000002.tar").write_bytes(b"")  # of another size: not whole
    kept = {path: path.stat().st_mtime_ns for path in target.glob("train-*[03].tar")}
    train, _ = made(images, target)
    assert kept and train.written >= 8
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert content(target) == content(tmp_path / "undisturbed")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_ends_prepare_at_once_however_often_it_comes(images, tmp_path, times):
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
