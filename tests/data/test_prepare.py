"""Making shards: every way in gives the same bytes, a kill costs little, bad input is named."""

import gzip
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, photo
from PIL import Image

from bn_inception.cli.main import dispatch
from bn_inception.data import archives
from bn_inception.data import prepare as prepare_module
from bn_inception.data.decode import UnreadableImage
from bn_inception.data.parallel import unordered
from bn_inception.data.prepare import PrepareConfig, Prepared, Recompression, prepare
from bn_inception.data.shards import ShardSource
from bn_inception.data.source import DataConfig, DataKind, open_sources
from bn_inception.errors import UserError

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and file locks")

REPOSITORY = Path(__file__).resolve().parents[2]
WNIDS = ("n01440764", "n01443537", "n15075141")


def silent(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def made(source: Path, target: Path, **settings: object) -> list[Prepared]:
    config = PrepareConfig(str(source), str(target), **{"shard_size": 4, "workers": 0, **settings})
    return prepare(config, lambda line: None, silent)


def refused(source: Path, target: Path, **settings: object) -> str:
    with pytest.raises(UserError) as caught:
        made(source, target, **settings)
    text = str(caught.value)
    assert "\n" not in text
    return text


def content(target: Path) -> dict[str, bytes]:
    """Every file but the lock and the note of the parquet files, which tells when they changed."""
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in sorted(target.rglob("*"))
        if path.is_file() and path.name != ".lock" and not path.name.endswith(".parquet.json")
    }


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A small ImageNet: its layout and its way of naming."""
    root = tmp_path / "images"
    number = 0
    for label, wnid in enumerate(WNIDS):
        for split, count in (("train", 4 + label), ("val", 2 + label)):
            folder = root / split / wnid
            folder.mkdir(parents=True)
            for own in range(count):
                number += 1
                name = (
                    f"{wnid}_{own * 37}.JPEG"
                    if split == "train"
                    else f"ILSVRC2012_val_{own * 3 + label + 1:08d}.JPEG"
                )
                (folder / name).write_bytes(encoded(photo(number)))
    return root


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def validation(images: Path) -> dict[str, tuple[str, bytes]]:
    """File name -> (wnid, bytes), in the order of the files' numbers."""
    paths = sorted((images / "val").glob("*/*"), key=lambda path: path.name)
    return {path.name: (path.parent.name, path.read_bytes()) for path in paths}


@pytest.fixture
def downloads(images: Path, tmp_path: Path) -> Path:
    """The same images as the archives that ImageNet is downloaded as."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    classes = {}
    for wnid in (WNIDS[2], WNIDS[0], WNIDS[1]):  # in no order, and neither are their members
        files = sorted((images / "train" / wnid).iterdir(), reverse=True)
        classes[f"{wnid}.tar"] = tar_of({path.name: path.read_bytes() for path in files})
    (folder / archives.TRAIN_TAR).write_bytes(tar_of(classes))
    held_out = validation(images)
    shuffled = sorted(held_out, key=lambda name: name[::-1])
    (folder / archives.VAL_TAR).write_bytes(
        tar_of({f"./{name}": held_out[name][1] for name in shuffled})
    )
    lines = "".join(f"{wnid}\n" for wnid, _ in held_out.values())
    (folder / "val_classes.txt").write_text(lines)
    return folder


def test_folders_become_shards(images: Path, tmp_path: Path) -> None:
    train, val = made(images, tmp_path / "shards")
    assert (train.images, train.shards, train.written) == (15, 4, 15)
    assert (val.images, val.shards) == (9, 3)
    files = set(content(tmp_path / "shards"))
    assert {"train.json", "val.json", "train.sha256", "train-000003.tar"} <= files
    assert not any("partial" in name or "tmp" in name or "spool" in name for name in files)


def test_archives_give_the_bytes_that_folders_give(
    images: Path, downloads: Path, tmp_path: Path
) -> None:
    made(images, tmp_path / "one")
    made(downloads, tmp_path / "other")
    assert content(tmp_path / "one") == content(tmp_path / "other")


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


def development_kit(images: Path) -> dict[str, bytes]:
    savemat = pytest.importorskip("scipy.io").savemat
    # As in the original: numbers do not follow the wnids, and inner nodes come after the leaves.
    numbers = {WNIDS[0]: 3, WNIDS[1]: 1, WNIDS[2]: 2}
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    synsets = np.array(
        [(number, wnid, "a, b") for wnid, number in numbers.items()] + [(1001, "n00001740", "all")],
        dtype=kinds,
    ).reshape(-1, 1)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets}, do_compression=True)
    truth = "".join(f"{numbers[wnid]}\n" for wnid, _ in validation(images).values())
    return {
        "ILSVRC2012_devkit_t12/readme.txt": b"",
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
    }


@pytest.mark.parametrize("unpacked", [False, True])
def test_the_development_kit_tells_the_classes(
    images: Path, downloads: Path, tmp_path: Path, unpacked: bool
) -> None:
    kit = development_kit(images)
    (downloads / "val_classes.txt").unlink()
    if unpacked:
        for name, data in kit.items():
            (downloads / name).parent.mkdir(parents=True, exist_ok=True)
            (downloads / name).write_bytes(data)
    else:
        (downloads / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(tar_of(kit)))
    made(images, tmp_path / "one")
    made(downloads, tmp_path / "other")
    assert content(tmp_path / "one") == content(tmp_path / "other")


def test_a_missing_scipy_or_kit_is_named_with_the_remedy(
    images: Path, downloads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = gzip.compress(tar_of(development_kit(images)))
    (downloads / "val_classes.txt").unlink()
    assert "put ILSVRC2012_devkit_t12.tar.gz beside it" in refused(downloads, tmp_path / "shards")
    (downloads / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(kit[: len(kit) // 2])
    assert "cannot be read" in refused(downloads, tmp_path / "shards")
    (downloads / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(tar_of({"a": b""})))
    assert "has no data/ILSVRC2012_validation_ground" in refused(downloads, tmp_path / "shards")
    with monkeypatch.context() as patch:
        patch.setattr(archives, "_MAX_DEVKIT_BYTES", 9_999)
        (downloads / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(bytes(10_000)))
        assert "unpacks to more than 9,999 bytes" in refused(downloads, tmp_path / "shards")
    hostile = gzip.compress(negative("data/meta.mat", tarfile.REGTYPE))
    (downloads / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(hostile)
    assert "'data/meta.mat' has -512 bytes" in refused(downloads, tmp_path / "shards")
    (downloads / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(kit)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    text = refused(downloads, tmp_path / "shards")
    assert "bn-inception[devkit]" in text and "val_classes.txt" in text


def parquet_of(rows: list[tuple[str | None, bytes | None, int]], path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": data, "path": name} for name, data, _ in rows]
    table = pyarrow.table({"image": images, "label": [label for _, _, label in rows]})
    pyarrow.parquet.write_table(table, path, row_group_size=3)


@pytest.fixture
def parquet(images: Path, tmp_path: Path) -> Path:
    """The same images as the files of imagenet-1k: in no order, class names in the paths."""
    folder = tmp_path / "parquet" / "data"
    folder.mkdir(parents=True)
    for split, ours in (("train", "train"), ("validation", "val")):
        paths = sorted((images / ours).glob("*/*"), key=lambda path: path.name[::-1])
        rows = [
            (
                f"{path.stem}_{path.parent.name}{path.suffix}",
                path.read_bytes(),
                WNIDS.index(path.parent.name),
            )
            for path in paths
        ]
        half = len(rows) // 2
        for number, part in enumerate((rows[:half], rows[half:])):
            parquet_of(part, folder / f"{split}-{number:05d}-of-00002.parquet")
    parquet_of([("ILSVRC2012_test_1.JPEG", b"x", -1)], folder / "test-00000-of-00001.parquet")
    return folder.parent


@pytest.mark.parametrize("workers", [0, 2])
def test_parquet_gives_the_bytes_that_folders_give(
    images: Path, parquet: Path, tmp_path: Path, workers: int
) -> None:
    made(images, tmp_path / "one")
    made(parquet, tmp_path / "other", workers=workers)
    assert content(tmp_path / "one") == content(tmp_path / "other")


def test_finished_shards_of_parquet_are_checked_without_unpacking(
    parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "shards"
    made(parquet, target)
    before = content(target)
    with monkeypatch.context() as patch:
        patch.setattr(archives, "open_parquet", None)
        train, val = made(parquet, target)
    assert (train.images, train.shards, train.written) == (15, 4, 0)
    assert (val.images, val.written) == (9, 0)
    (target / "val-000001.tar").write_bytes(b"")
    _, val = made(parquet, target)
    assert val.written == 4
    assert content(target) == before
    assert "shard_size is '5' here, '4' there" in refused(parquet, target, shard_size=5)


def test_a_killed_prepare_of_parquet_keeps_what_is_unpacked(
    parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "shards"
    made(parquet, tmp_path / "undisturbed")
    unpack = archives._unpack
    unpacked: list[str] = []

    def stopped(spool: Path, path: Path) -> None:
        if len(unpacked) == 2:
            raise KeyboardInterrupt
        unpack(spool, path)
        unpacked.append(path.name)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(archives, "_unpack", stopped)
        made(parquet, target)

    def counted(spool: Path, path: Path) -> None:
        unpack(spool, path)
        unpacked.append(path.name)

    monkeypatch.setattr(archives, "_unpack", counted)
    made(parquet, target)
    assert len(unpacked) == len(set(unpacked)) == 4
    assert content(target) == content(tmp_path / "undisturbed")


def other_images(parquet: Path, other: Path, split: str) -> None:
    """Copy `parquet`; images of `split` keep names, labels and sizes, and differ in one byte."""
    table = pytest.importorskip("pyarrow.parquet")
    (other / "data").mkdir(parents=True)
    for path in parquet.glob("data/*.parquet"):
        rows = [
            (row["image"]["path"], row["image"]["bytes"], row["label"])
            for row in table.read_table(path).to_pylist()
        ]
        if path.name.startswith(split):
            rows = [(name, data[:-1] + b"!", label) for name, data, label in rows]
        parquet_of(rows, other / "data" / path.name)


def test_unpacked_images_of_another_source_are_not_taken(parquet: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    validation_file = parquet / "data" / "validation-00001-of-00002.parquet"
    parquet_of([("a.jpg", b"x", -1)], validation_file)
    assert "label -1" in refused(parquet, target)
    assert list(target.glob("spool/train-*.bytes"))
    other = tmp_path / "other"
    other_images(parquet, other, "train")
    shutil.copy(validation_file.with_name("validation-00000-of-00002.parquet"), other / "data")
    (other / "data" / validation_file.name).unlink()
    made(other, target)
    made(other, tmp_path / "undisturbed")
    assert content(target) == content(tmp_path / "undisturbed")
    assert content(target)["train-000000.tar"].count(b"!") >= 4


@pytest.mark.parametrize("damage", [b"junk", None])
def test_unpacked_images_that_are_damaged_are_unpacked_again(
    parquet: Path, tmp_path: Path, damage: bytes | None
) -> None:
    target = tmp_path / "shards"
    broken = parquet / "data" / "validation-00001-of-00002.parquet"
    whole = broken.read_bytes()
    parquet_of([("a.jpg", b"x", -1)], broken)
    refused(parquet, target)
    broken.write_bytes(whole)
    if damage is None:
        (target / "spool" / "train-00000-of-00002.bytes").unlink()
    else:
        (target / "spool" / "train-00000-of-00002.npz").write_bytes(damage)
    made(parquet, target)
    made(parquet, tmp_path / "undisturbed")
    assert content(target) == content(tmp_path / "undisturbed")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_finished_shards_are_compared_with_other_parquet_files(
    parquet: Path, tmp_path: Path, split: str
) -> None:
    target, other = tmp_path / "shards", tmp_path / "other"
    made(parquet, target)
    before = content(target)
    other_images(parquet, other, split)
    text = refused(other, target)
    assert "holds other images than the source" in text and "choose another folder" in text
    assert content(target) == before  # and nothing unpacked is left
    # The same images in other files: compared once, and known from then on.
    again = tmp_path / "again"
    other_images(parquet, again, "none")
    train, val = made(again, target)
    assert (train.written, val.written) == (0, 0)
    assert content(target) == before


def test_a_begun_prepare_takes_nothing_from_other_parquet_files(
    parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, other = tmp_path / "shards", tmp_path / "other"

    def stop(job: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare_module, "_finish", stop)
        made(parquet, target)
    other_images(parquet, other, "train")
    train, _ = made(other, target)
    assert train.written == 15
    made(other, tmp_path / "undisturbed")
    assert content(target) == content(tmp_path / "undisturbed")


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


def test_parquet_that_unpacks_to_far_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table = pytest.importorskip("pyarrow.parquet").write_table
    monkeypatch.setattr(archives, "MAX_IMAGE_BYTES", 1_000_000)
    source = tmp_path / "source"
    source.mkdir()
    path = source / "train-0.parquet"

    def write(image: bytes, times: int, **options: object) -> None:
        table = pytest.importorskip("pyarrow").table(
            {"image": [{"bytes": image, "path": None}] * times, "label": [0] * times}
        )
        write_table(table, path, **options)

    write(bytes(900_000), 4, compression="zstd", use_dictionary=False)
    assert re.search(r"unpacks to 3,600,\d+ or more.*refused", refused(source, tmp_path / "a"))
    assert not list((tmp_path / "a").rglob("*.bytes"))
    # The file's own account is of one image, which a dictionary holds.
    write(np.random.default_rng(0).bytes(50_000), 100)
    assert "unpacks to 1,050,000 or more" in refused(source, tmp_path / "b")
    write(np.random.default_rng(0).bytes(1_200_000), 1)
    assert "1 images take 1,200," in refused(source, tmp_path / "c")
    write(np.random.default_rng(0).bytes(50_000), 19)
    made(source, tmp_path / "d")


def test_room_is_asked_for_what_parquet_unpacks_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table = pytest.importorskip("pyarrow.parquet").write_table
    source = tmp_path / "source"
    source.mkdir()
    image = bytes(100_000)
    table = pytest.importorskip("pyarrow").table(
        {"image": [{"bytes": image, "path": None}] * 8, "label": [0] * 8}
    )
    write_table(table, source / "train-0.parquet", compression="zstd", use_dictionary=False)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_500_000))
    assert "free; make room" in refused(source, tmp_path / "shards")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_700_000))
    made(source, tmp_path / "shards")


@pytest.mark.parametrize("call", [1, 2, 4, 5, 12])
def test_a_full_disk_while_parquet_is_taken_is_no_fault_of_the_files(
    parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    target = tmp_path / "shards"
    fsync, calls = os.fsync, 0

    def no_space(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        text = refused(parquet, target)
    assert text.startswith("target: ") and "(No space left on device); make room" in text
    made(parquet, target)
    made(parquet, tmp_path / "undisturbed")
    assert content(target) == content(tmp_path / "undisturbed")


@pytest.mark.parametrize("name", ["spool", "train.partial", "train.index"])
def test_a_folder_that_cannot_be_made_is_named(
    parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    target = tmp_path / "shards"
    mkdir = Path.mkdir

    def no_space(path: Path, *arguments: object, **options: object) -> None:
        if path.name == name:
            raise OSError(28, "No space left on device")
        mkdir(path, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", no_space)
        assert f"{target / name} cannot be written (No space" in refused(parquet, target)
    made(parquet, target)


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


@pytest.mark.parametrize("text", [None, '{"format": "bn-inception shards", "ver'])
def test_a_lost_description_is_refused_with_what_helps(
    images: Path, tmp_path: Path, text: str | None
) -> None:
    target = tmp_path / "shards"
    made(images, target)
    before = content(target)
    path = target / "train.json"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    said = refused(images, target)
    assert str(path.name) in said and "bn-inception prepare" not in said
    assert f"remove {'it and ' if text else ''}{target}/train-*.tar" in said
    path.unlink(missing_ok=True)
    for shard in target.glob("train-*.tar"):
        shard.unlink()
    made(images, target)
    assert content(target) == before


@pytest.mark.parametrize("source", ["images", "parquet"])
@pytest.mark.parametrize("text", [None, "junk"])
def test_lost_checksums_are_written_again(
    source: str, text: str | None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder, target = request.getfixturevalue(source), tmp_path / "shards"
    made(folder, target)
    before = content(target)
    path = target / "train.sha256"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    said: list[str] = []
    config = PrepareConfig(str(folder), str(target), shard_size=4, workers=0)
    train, _ = prepare(config, said.append, silent)
    assert train.written == 0
    assert [line for line in said if f"{path} is missing or damaged" in line]
    assert content(target) == before


@pytest.mark.parametrize("source", ["images", "parquet"])
def test_what_a_killed_call_had_no_time_to_remove_is_removed(
    source: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder, target = request.getfixturevalue(source), tmp_path / "shards"
    made(folder, target)
    before = content(target)
    for name in ("spool", "val.partial"):
        (target / name).mkdir()
        (target / name / "file").touch()
    for name in (".train-000000.tar", ".val.json", "..val.parquet.json", "val.index/.label.npy"):
        (target / f"{name}.1.tmp").touch()
    made(folder, target)
    assert content(target) == before
    assert not (target / "spool").exists() and not (target / "val.partial").exists()


def test_a_mistyped_source_leaves_nothing(images: Path, tmp_path: Path) -> None:
    for source in (tmp_path / "no", images / "train"):
        refused(source, tmp_path / "shards")
        assert not (tmp_path / "shards").exists()


def test_parquet_without_paths_is_numbered(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for split in ("train", "validation"):
        rows = [(None, encoded(photo(n)), n % 3 + 8) for n in range(6)]
        parquet_of(rows, source / f"{split}-0.parquet")
    made(source, tmp_path / "shards")
    train = open_sources(DataConfig(DataKind.shards, str(tmp_path / "shards"))).train
    assert train.classes == ("8", "9", "10")
    assert train.identity(0) == "8/train-0-00000000.jpg"


def test_odd_parquet_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    path = source / "train-0.parquet"
    parquet_of([("a.jpg", b"x", -1)], path)
    assert "row 0 has label -1" in refused(source, tmp_path / "shards")
    parquet_of([("a.jpg", b"x", 0), ("b.jpg", None, 0)], path)
    assert "row 1 has no image bytes" in refused(source, tmp_path / "shards")
    monkeypatch.setattr(archives, "MAX_IMAGE_BYTES", 9)
    parquet_of([("a.jpg", b"0123456789", 0)], path)
    assert "row 0 has 10 bytes, more than 9" in refused(source, tmp_path / "shards")
    path.write_bytes(b"PAR1 no more")
    assert f"{path} cannot be read" in refused(source, tmp_path / "shards")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "bn-inception[parquet]" in refused(source, tmp_path / "shards")


def test_processes_do_not_change_the_bytes(images: Path, tmp_path: Path) -> None:
    made(images, tmp_path / "one")
    made(images, tmp_path / "two", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


SLOW = """
import sys, time
from bn_inception.data import prepare as module
from bn_inception.data.source import FolderSource

read = FolderSource.read
FolderSource.read = lambda self, index: (time.sleep(0.05), read(self, index))[1]
config = module.PrepareConfig(sys.argv[1], sys.argv[2], shard_size=4, workers=2)
module.prepare(config, print, lambda what, done, total: None)
"""


@pytest.mark.timeout(120)
def test_a_killed_prepare_goes_on_and_ends_with_the_same_bytes(
    images: Path, tmp_path: Path
) -> None:
    made(images, tmp_path / "undisturbed")
    target = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(images), str(target)], cwd=REPOSITORY
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
    # Processes of the killed one live for half a second more, and may leave a temporary file.
    found = {name: data for name, data in content(target).items() if not name.startswith(".")}
    assert found == content(tmp_path / "undisturbed")
    time.sleep(1)
    made(images, target)
    assert content(target) == content(tmp_path / "undisturbed")


INTERRUPTED = """
import signal, sys, time
from bn_inception.cli.main import main
from bn_inception.data import prepare as module

# Ignored where the tests run in the background of a shell, and that would be inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
# As long as a shard of large images to encode again.
module.Recompression.encode = lambda self, data, name: (time.sleep(20), data)[1]
main(["prepare", *sys.argv[1:], "shorter_side=20", "shard_size=4", "workers=2"])
"""


@pytest.mark.timeout(120)
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
        while len(list(target.glob(".train-*.tmp"))) < 2:  # both processes are at work
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


def test_a_damaged_shard_is_found_named_and_made_again(images: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    made(images, target)
    before = content(target)
    with (target / "train-000001.tar").open("r+b") as file:
        file.seek(700)
        file.write(b"flipped")
    (target / "val-000002.tar").unlink()
    said: list[str] = []
    config = PrepareConfig(str(images), str(target), shard_size=4, workers=0)
    train, val = prepare(config, said.append, silent)
    assert (train.written, val.written) == (4, 1)
    assert len(said) == 2
    assert "train-000001.tar is missing or damaged" in said[0]
    assert "val-000002.tar is missing or damaged" in said[1]
    assert content(target) == before
    with (target / "train.index" / "offset.npy").open("r+b") as file:
        file.seek(200)
        file.write(b"flipped")
    said.clear()
    prepare(config, said.append, silent)
    assert "offset.npy is damaged" in said[0]
    assert content(target) == before


def test_a_damaged_shard_of_a_begun_prepare_is_made_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "shards"
    made(images, tmp_path / "undisturbed")

    def stop(job: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare_module, "_finish", stop)
        made(images, target)
    (target / "train-000000.tar").write_bytes(b"")
    (target / "train.partial" / "000001.json").write_text('{"bytes"')
    train, _ = made(images, target)
    assert train.written == 8
    assert content(target) == content(tmp_path / "undisturbed")


def test_other_images_or_settings_are_refused(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "shards"
    made(images, target)
    text = refused(images, target, shard_size=5)
    assert "shard_size is '5' here, '4' there" in text and "choose another folder" in text
    assert "encoding is 'shorter side 20" in refused(images, target, shorter_side=20)
    before = content(target)
    path = next((images / "train" / WNIDS[0]).iterdir())
    path.write_bytes(path.read_bytes() + b"x")
    assert "source images is" in refused(images, target)
    assert content(target) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "train-000000.tar").write_bytes(b"somebody's")
    assert "not of this program" in refused(images, other)
    assert content(other) == {"train-000000.tar": b"somebody's"}


def test_two_at_once_are_kept_apart(images: Path, tmp_path: Path) -> None:
    code = (
        "import fcntl, sys\nf = open(sys.argv[1], 'w')\nfcntl.lockf(f, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    target = tmp_path / "shards"
    target.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(target / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert "being written by another process" in refused(images, target)
        holder.communicate()
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


def test_room_for_unpacked_parquet_is_checked_too(
    parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(path.stat().st_size for path in parquet.glob("data/[tv][ra]*.parquet"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=size * 3 // 2))
    assert "free; make room" in refused(parquet, tmp_path / "shards")
    assert content(tmp_path / "shards") == {}


def test_a_full_disk_is_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    assert "No space left on device" in refused(images, tmp_path / "shards")
    assert not any(name.startswith(".") for name in content(tmp_path / "shards"))


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def checked(header: bytes) -> bytes:
    """A header with the sum that belongs to it."""
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def negative(name: str, kind: bytes) -> bytes:
    """An archive whose only member has -512 bytes: a reader that believes it never ends."""
    header = tarfile.TarInfo(name)
    header.type = kind
    block = header.tobuf(tarfile.GNU_FORMAT)[:512]
    size = b"\xff" * 10 + b"\xfe\x00"  # base 256, two's complement
    return checked(block[:124] + size + block[136:]) + bytes(10240)


def extended(text: bytes, times: int = 1) -> bytes:
    """An archive of one member with `times` extended headers before it."""
    info = tarfile.TarInfo("extended")
    info.type, info.size = tarfile.XHDTYPE, len(text)
    header = info.tobuf(tarfile.USTAR_FORMAT) + text.ljust(512, b"\0")
    return header * times + member("x.JPEG")


HOSTILE = {
    "negative": (negative("x.JPEG", tarfile.REGTYPE), "'x.JPEG' has -512 bytes"),
    "negative header": (negative("x", tarfile.GNUTYPE_LONGNAME), "a header of -512 bytes"),
    "negative, extended": (extended(b"13 size=-512\n"), "'x.JPEG' has -512 bytes"),
    "a number too large": (extended(b"99999999999999999999 path=x\n"), r"source: \S+"),
    "a chain of headers": (extended(b"15 path=y.JPEG\n", 2000), "recursion"),
    "sparse": (
        extended(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"),
        "not an uncompressed tar file|sparse|damaged",
    ),
    "moved by its header": (extended(b"20 path=/etc/x.JPEG\n"), "has an absolute path"),
    "absolute": (member("/etc/cron.d/x.JPEG"), "'/etc/cron.d/x.JPEG' has an absolute path"),
    "outside": (member("../x.JPEG"), r"'../x.JPEG' leads out of its folder"),
    "inside": (member("a/b.JPEG"), "'a/b.JPEG' lies in a folder"),
    "symbolic": (member("x.JPEG", tarfile.SYMTYPE, link="/etc/passwd"), "link to '/etc/passwd'"),
    "hard": (member("x.JPEG", tarfile.LNKTYPE, link="y.JPEG"), "'x.JPEG' is a link to 'y.JPEG'"),
    "device": (member("x.JPEG", tarfile.CHRTYPE), "'x.JPEG' is neither a file nor a folder"),
    "fifo": (member("x.JPEG", tarfile.FIFOTYPE), "'x.JPEG' is neither a file nor a folder"),
    "folder": (member("sub", tarfile.DIRTYPE), "'sub' is a folder"),
    "large": (member("x.JPEG", data=b"x" * 1001), "'x.JPEG' has 1,001 bytes, more than 1,000"),
    "twice": (tar_of({"a.JPEG": b"1"})[:1024] + tar_of({"a.JPEG": b"2"}), "a.JPEG twice"),
    "compressed": (gzip.compress(tar_of({"a.JPEG": b"1"})), "not an uncompressed tar file"),
    "cut short": (tar_of({"a.JPEG": b"1" * 900})[:1000], "'a.JPEG' reaches over the end|damaged"),
    "no end": (tar_of({"a.JPEG": b"1"})[:1024], "ends early or is damaged at byte 1,024"),
    "torn": (
        tar_of({"a.JPEG": b"1"})[:1024] + b"\xff" * 512 + tar_of({"b.JPEG": b"2"}),
        "ends early or is damaged at byte 1,024",
    ),
    "huge header": (b"", "a header of 2,"),
    "empty": (tar_of({}), "holds no images"),
    "nothing": (b"", "not an uncompressed tar file"),
}


def huge_header() -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2 << 30
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(10240)


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("which", ["class", "validation"])
def test_hostile_archives_are_refused_by_name(
    what: str, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_IMAGE_BYTES", 1000)
    archive, named = HOSTILE[what]
    archive = huge_header() if what == "huge header" else archive
    source = tmp_path / "source"
    source.mkdir()
    if which == "class":
        if what == "empty":
            named = "holds no images"
        (source / archives.TRAIN_TAR).write_bytes(tar_of({"n01440764.tar": archive}))
    else:
        (source / archives.VAL_TAR).write_bytes(archive)
        lines = 2 if what == "twice" else 0 if what == "empty" else 1
        (source / "val_classes.txt").write_text("n01440764\n" * max(lines, 1))
        if what == "empty":
            named = "holds 0 images, val_classes.txt has 1 labels"
    text = refused(source, tmp_path / "shards")
    assert text.startswith("source: ")
    assert archives.TRAIN_TAR in text or archives.VAL_TAR in text
    assert re.search(named, text), text
    assert not list((tmp_path / "shards").glob("*.tar"))


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 4 * 512 - 1), st.integers(0, 255)), min_size=1, max_size=6
    ),
    extended_format=st.booleans(),
)
def test_a_changed_header_is_read_or_refused(
    changes: list[tuple[int, int]], extended_format: bool
) -> None:
    archive = io.BytesIO()
    kind = tarfile.PAX_FORMAT if extended_format else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=archive, mode="w", format=kind) as tar:
        tar.addfile(tarfile.TarInfo(f"{'a' * 120}.JPEG"))
    content = bytearray(archive.getvalue())
    for place, value in changes:
        content[place] = value
    # Sums that are right, so that what the header says is taken seriously.
    blocks = [bytes(content[i : i + 512]) for i in range(0, len(content), 512)]
    blocks = [checked(block) if block[257:262] == b"ustar" else block for block in blocks]
    with tempfile.TemporaryDirectory() as folder:
        path, labels = Path(folder, archives.VAL_TAR), Path(folder, "val_classes.txt")
        path.write_bytes(b"".join(blocks))
        labels.write_text("n01440764\n")
        try:
            assert len(archives.open_val_tar(path, labels)) == 1
        except UserError as error:
            assert str(error).startswith("source: ")


def test_an_outer_member_that_is_no_class_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / archives.TRAIN_TAR).write_bytes(tar_of({"x.JPEG": b"1"}))
    assert "'x.JPEG' is not the tar file of a class" in refused(source, tmp_path / "shards")
    (source / archives.TRAIN_TAR).write_bytes(tar_of({"../n01440764.tar": tar_of({})}))
    assert "leads out of its folder" in refused(source, tmp_path / "shards")


@pytest.mark.parametrize("name", ["..", ".n2", ".", "n\n2", "n2\x1b[31m", "n2\udcff"])
def test_a_class_archive_named_like_no_class_is_refused(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    inner = tar_of({"x.JPEG": b"1"})
    outer = io.BytesIO()
    with tarfile.open(fileobj=outer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for own in ("n01440764", name):
            info = tarfile.TarInfo(f"{own}.tar")
            info.size = len(inner)
            tar.addfile(info, io.BytesIO(inner))
    (source / archives.TRAIN_TAR).write_bytes(outer.getvalue())
    text = refused(source, tmp_path / "shards")
    assert repr(f"{name}.tar") in text and "refused" in text


@pytest.mark.parametrize("files", [{}, {"readme.txt": b"x"}])
def test_a_class_archive_without_images_is_named(files: dict[str, bytes], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    classes = {f"{wnid}.tar": tar_of({"x.JPEG": b"1"}) for wnid in WNIDS}
    classes[f"{WNIDS[1]}.tar"] = tar_of(files)
    (source / archives.TRAIN_TAR).write_bytes(tar_of(classes))
    assert f"{WNIDS[1]}.tar holds no images" in refused(source, tmp_path / "shards")


def test_a_class_that_comes_twice_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    outer = io.BytesIO()
    with tarfile.open(fileobj=outer, mode="w") as tar:
        for image in ("a.JPEG", "b.JPEG"):
            inner = tar_of({image: b"1"})
            info = tarfile.TarInfo("n01440764.tar")
            info.size = len(inner)
            tar.addfile(info, io.BytesIO(inner))
    (source / archives.TRAIN_TAR).write_bytes(outer.getvalue())
    assert "n01440764.tar twice" in refused(source, tmp_path / "shards")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [archives.TRAIN_TAR, archives.VAL_TAR, "val_classes.txt"])
def test_a_pipe_instead_of_a_file_is_named(downloads: Path, tmp_path: Path, name: str) -> None:
    (downloads / name).unlink()
    os.mkfifo(downloads / name)
    text = refused(downloads, tmp_path / "shards")
    assert f"{downloads / name} is n" in text and "file" in text


def test_the_annotated_split_of_tiny_imagenet_alone(tmp_path: Path) -> None:
    val = tmp_path / "tiny" / "val"
    (val / "images").mkdir(parents=True)
    lines = []
    for number in range(5):
        (val / "images" / f"val_{number}.JPEG").write_bytes(encoded(photo(number)))
        lines.append(f"val_{number}.JPEG\t{WNIDS[number % 3]}\t0\t0\t9\t9\n")
    (val / "val_annotations.txt").write_text("".join(lines))
    made(val.parent, tmp_path / "shards")
    shards = ShardSource(str(tmp_path / "shards"), "val")
    assert shards.classes == WNIDS
    assert shards.labels.tolist() == [0, 0, 1, 1, 2]
    (val / "images" / "val_4.JPEG").unlink()
    assert "the first is val_4.JPEG" in refused(val.parent, tmp_path / "other")


def test_labels_must_belong_to_the_images(downloads: Path, tmp_path: Path) -> None:
    (downloads / "val_classes.txt").write_text(f"{WNIDS[0]}\n" * 8)
    assert "holds 9 images, val_classes.txt has 8" in refused(downloads, tmp_path / "shards")
    (downloads / "val_classes.txt").write_text("n99999999\n" * 9)
    assert "different classes (3 and 1)" in refused(downloads, tmp_path / "shards")
    (downloads / "val_classes.txt").write_text("../x\n" * 9)
    assert "not a list of classes" in refused(downloads, tmp_path / "shards")


def test_a_source_that_is_none_or_several_is_named(images: Path, tmp_path: Path) -> None:
    assert "does not exist; expected train/" in refused(tmp_path / "no", tmp_path / "shards")
    (tmp_path / "empty").mkdir()
    assert "holds nothing of the kind" in refused(tmp_path / "empty", tmp_path / "shards")
    (images / archives.TRAIN_TAR).touch()
    assert "holds several of these" in refused(images, tmp_path / "shards")
    (images / archives.TRAIN_TAR).unlink()
    (images / "val" / WNIDS[0]).rename(images / "val" / "x")
    text = refused(images, tmp_path / "shards")
    assert text.startswith("source: ") and "data.root" not in text


def test_an_image_that_cannot_be_read_or_decoded_is_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = images / "train" / WNIDS[1] / "broken.JPEG"
    broken.write_bytes(encoded(photo(1))[:500])
    made(images, tmp_path / "kept")  # its own bytes, whatever they are
    text = refused(images, tmp_path / "smaller", shorter_side=20, workers=2)
    assert f"{broken} cannot be encoded again" in text
    broken.unlink()
    broken.symlink_to(tmp_path / "nowhere")
    made(images, tmp_path / "without")  # no file: not listed


def test_recompression() -> None:
    small = encoded(photo(1, (64, 40)))
    assert Recompression(40, 90).encode(small, "x") == small
    wide = Image.open(io.BytesIO(Recompression(40, 90).encode(encoded(photo(1, (129, 80))), "x")))
    assert (wide.size, wide.format, wide.mode) == ((64, 40), "JPEG", "RGB")
    tall = Image.open(io.BytesIO(Recompression(40, 90).encode(encoded(photo(1, (80, 240))), "x")))
    assert tall.size == (40, 120)
    original = np.asarray(photo(1, (129, 80)).resize((64, 40), Image.Resampling.LANCZOS), float)
    assert np.abs(np.asarray(wide, float) - original).mean() < 3
    # CMYK and PNG become what any JPEG reader understands.
    cmyk = Recompression(20, 90).encode(encoded(photo(1).convert("CMYK")), "x")
    assert Image.open(io.BytesIO(cmyk)).mode == "RGB"


def test_an_image_too_long_for_a_jpeg_is_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "_JPEG_SIDE", 100)
    path = images / "train" / WNIDS[0] / "long.JPEG"
    path.write_bytes(encoded(photo(1, (300, 30))))
    text = refused(images, tmp_path / "shards", shorter_side=20)
    assert f"{path} cannot be encoded again: 300 x 30 pixels would become 200 x 20" in text
    assert "JPEG holds 100 a side" in text


def test_the_longest_side_of_a_jpeg() -> None:
    long = encoded(Image.new("L", (65_600, 2)), "PNG")
    with pytest.raises(UnreadableImage, match="holds 65,500 a side"):
        Recompression(1, 90).encode(encoded(Image.new("L", (131_100, 2)), "PNG"), "x")
    half = Image.open(io.BytesIO(Recompression(1, 90).encode(long, "x")))
    assert half.size == (32_800, 1)


def test_recompressed_shards_are_smaller_and_other(images: Path, tmp_path: Path) -> None:
    train, _ = made(images, tmp_path / "small", shorter_side=20, quality=80)
    kept, _ = made(images, tmp_path / "kept")
    assert train.images == kept.images
    small = open_sources(DataConfig(DataKind.shards, str(tmp_path / "small"))).train
    same = open_sources(DataConfig(DataKind.shards, str(tmp_path / "kept"))).train
    assert small.fingerprint() != same.fingerprint()
    assert small.meta.source_fingerprint == same.fingerprint()
    assert "shorter side 20, JPEG quality 80" in small.meta.encoding
    for index in range(len(small)):
        assert min(Image.open(io.BytesIO(small.read(index))).size) == 20
    train, _ = made(images, tmp_path / "small", shorter_side=20, quality=80)
    assert train.written == 0


def test_held_out_images_may_keep_the_bytes_that_training_images_lose(
    images: Path, tmp_path: Path
) -> None:
    target = tmp_path / "shards"
    for split, own in (("train", {"shorter_side": 20}), ("val", {})):
        alone = tmp_path / split
        alone.mkdir()
        (alone / split).symlink_to(images / split)
        made(alone, target, **own)
    both = open_sources(DataConfig(DataKind.shards, str(target)))
    assert min(Image.open(io.BytesIO(both.train.read(0))).size) == 20
    original = open_sources(DataConfig(DataKind.folder, str(images))).validation
    assert both.validation.fingerprint() == original.fingerprint()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"quality": 90}, "quality: 90 is not read"),
        ({"quality": 0, "shorter_side": 9}, "quality: 0 is not between"),
        ({"shorter_side": 0}, "shorter_side: 0"),
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
    rate = r"15 images written in [\d.]+ s by 1 process: [\d,]+ images/s, [\d.,]+ MB/s"
    assert re.search(rate, out)
    assert f"data=shards data.root={tmp_path / 'shards'}" in out
    assert err == ""
    assert dispatch(given) == 0
    assert "all there, checksums right" in capsys.readouterr().out
    with pytest.raises(UserError, match="source: not set"):
        dispatch(["prepare", f"target={tmp_path}"])
    with pytest.raises(UserError, match="takes key=value only"):
        dispatch(["prepare", str(images)])


def _double(number: int) -> int:
    if number == 7:
        raise UserError("seven")
    if number == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def test_work_is_spread_and_its_errors_come_back() -> None:
    for workers in (0, 2):
        assert sorted(unordered(_double, iter(range(7)), workers)) == list(range(0, 14, 2))
        with pytest.raises(UserError, match="seven"):
            list(unordered(_double, [1, 7], workers))
    with pytest.raises(UserError, match="died"):
        list(unordered(_double, [1, 8, 2], 2))
