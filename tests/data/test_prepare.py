"""Making shards: a kill costs little, nothing of the user's is removed, bad input is named."""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import run_ranks
from samples import WNIDS, content, encoded, made, photo, refused, silent

from bn_inception.cli.main import dispatch
from bn_inception.data.intake import archives
from bn_inception.data.intake.prepare import PrepareConfig, prepare
from bn_inception.data.shards import ShardSource
from bn_inception.errors import UserError
from bn_inception.files import locked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and file locks")


def test_folders_become_shards(images: Path, tmp_path: Path) -> None:
    train, val = made(images, tmp_path / "shards")
    assert (train.images, train.shards, train.written) == (15, 4, 15)
    assert (val.images, val.shards) == (9, 3)
    names = {f"train-{shard:06d}.tar" for shard in range(4)}
    names |= {f"val-{shard:06d}.tar" for shard in range(3)}
    names |= {f"{s}{end}" for s in ("train", "val") for end in (".json", ".sha256", ".index.npy")}
    assert set(content(tmp_path / "shards")) == names
    made(images, tmp_path / "other", workers=2)
    assert content(tmp_path / "shards") == content(tmp_path / "other")


def test_one_split_alone_and_the_other_later(images: Path, downloads: Path, tmp_path: Path) -> None:
    made(images, tmp_path / "one")
    (downloads / archives.VAL_TAR).rename(tmp_path / "later")
    assert [done.split for done in made(downloads, tmp_path / "other")] == ["train"]
    (tmp_path / "later").rename(downloads / archives.VAL_TAR)
    train, val = made(downloads, tmp_path / "other")
    assert (train.written, val.written) == (0, 9)
    assert content(tmp_path / "one") == content(tmp_path / "other")
    shutil.rmtree(images / "val")
    assert [done.split for done in made(images, tmp_path / "third")] == ["train"]


def test_a_shard_made_again_of_changed_images_is_not_put_in_place(
    images: Path, tmp_path: Path
) -> None:
    target = tmp_path / "shards"
    made(images, target)
    shard = target / "train-000001.tar"
    shard.unlink()
    before = content(target)
    for path in (images / "train").glob("*/*"):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert "the source has changed" in refused(images, target)
    assert content(target) == before


@pytest.mark.parametrize("lost", [Path.unlink, lambda path: path.write_text('{"format": "bn')])
def test_a_lost_description_is_refused_with_what_helps(
    images: Path, tmp_path: Path, lost: Callable[[Path], object]
) -> None:
    target = tmp_path / "shards"
    made(images, target)
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


def test_what_else_lies_in_the_target_stays(images: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    (target / "train").mkdir(parents=True)
    for name in ("train/thesis.txt", "notes.part", ".hidden.77.tmp", "train.txt"):
        (target / name).write_text("years of work")
    before = content(target)
    made(images, target)
    made(images, target)
    assert before.items() <= content(target).items()


def test_damage_is_found_named_and_mended(images: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    made(images, target)
    before = content(target)
    said: list[str] = []
    config = PrepareConfig(str(images), str(target), shard_size=4, workers=0)

    def mended() -> list[int]:
        said.clear()
        written = [done.written for done in prepare(config, said.append, silent)]
        assert content(target) == before
        return written

    with (target / "train-000001.tar").open("r+b") as file:
        file.seek(700)
        file.write(b"flipped")
    (target / "val-000002.tar").unlink()
    assert mended() == [4, 1]
    assert len(said) == 2
    assert "train-000001.tar was missing or damaged" in said[0]
    assert "val-000002.tar was missing or damaged" in said[1]
    with (target / "train.index.npy").open("r+b") as file:
        file.seek(200)
        file.write(b"flipped")
    (target / "train.sha256").unlink()
    (target / "val.sha256").write_text("junk")
    assert mended() == [0, 0]


def test_other_images_or_settings_are_refused(images: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    made(images, target)
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


def test_two_at_once_are_kept_apart(images: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    target.mkdir()
    with locked(target / ".lock"):  # the lock is a process's own: a fork has it not
        (said,) = run_ranks(1, lambda rank: refused(images, target))
    assert "being written by another process" in said
    made(images, target)


def test_room_is_checked_before_anything_is_written(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=20_000))
    text = refused(images, tmp_path / "shards")
    assert "needs up to 0.0 GB more, 0.0 GB are free" in text
    assert content(tmp_path / "shards") == {}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=200_000))
    made(images, tmp_path / "shards")


def test_a_full_disk_is_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    assert "No space left on device" in refused(images, tmp_path / "shards")
    assert not any(name.startswith(".") for name in content(tmp_path / "shards"))


def test_the_annotated_split_of_tiny_imagenet_alone(tmp_path: Path) -> None:
    val = tmp_path / "tiny" / "val"
    (val / "images").mkdir(parents=True)
    for number in range(5):
        (val / "images" / f"val_{number}.JPEG").write_bytes(encoded(photo(number)))
    lines = [f"val_{number}.JPEG\t{WNIDS[number % 3]}\t0\t0\t9\t9\n" for number in range(5)]
    (val / "val_annotations.txt").write_text("".join(lines))
    made(val.parent, tmp_path / "shards")
    shards = ShardSource(str(tmp_path / "shards"), "val")
    assert (shards.classes, shards.labels.tolist()) == (WNIDS, [0, 0, 1, 1, 2])


def test_a_source_that_is_none_or_several_is_named(images: Path, tmp_path: Path) -> None:
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
    ("values", "named"),
    [
        ({"shard_size": 0}, "shard_size: 0"),
        ({"workers": -1}, "workers: -1"),
        ({"source": ""}, "source: empty"),
        ({"target": " "}, "target: empty"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        PrepareConfig(**{"source": "a", "target": "b", **values})


def test_the_command(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["prepare", f"source={images}", f"target={tmp_path / 'shards'}", "workers=0"]
    assert dispatch(given) == 0
    out, err = capsys.readouterr()
    assert "train: 15 images in 1 shards" in out
    assert re.search(r"15 images written in [\d.]+ s: [\d,]+ images/s", out)
    assert f"data=shards data.root={tmp_path / 'shards'}" in out
    assert err == ""
    assert dispatch(given) == 0
    assert "all there, checksums right" in capsys.readouterr().out
    with pytest.raises(UserError, match="source: not set"):
        dispatch(["prepare", f"target={tmp_path}"])
    with pytest.raises(UserError, match="takes key=value only"):
        dispatch(["prepare", str(images)])
