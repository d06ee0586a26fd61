"""imagenet-1k's parquet files: unpacked into class folders, and refused by name if they are odd."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from imagenets import WNIDS, content, made, refused
from pictures import encoded, photo

from bn_inception.data import DataConfig, DataKind, open_sources
from bn_inception.data.intake import parquet as parquet_module


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


def test_parquet_that_unpacks_to_far_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table = pytest.importorskip("pyarrow.parquet").write_table
    monkeypatch.setattr(parquet_module, "MAX_IMAGE_BYTES", 1_000_000)
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


@pytest.mark.parametrize("name", ["spool", "train"])
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
        text = refused(parquet, target)
    assert re.search(rf"target: {target}/(spool/)?{name}.* cannot be written \(No space", text)
    made(parquet, target)


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
    monkeypatch.setattr(parquet_module, "MAX_IMAGE_BYTES", 9)
    parquet_of([("a.jpg", b"0123456789", 0)], path)
    assert "row 0 has 10 bytes, more than 9" in refused(source, tmp_path / "shards")
    path.write_bytes(b"PAR1 no more")
    assert f"{path} cannot be read" in refused(source, tmp_path / "shards")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "bn-inception[parquet]" in refused(source, tmp_path / "shards")


def test_names_that_cannot_be_are_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    path = source / "train-0.parquet"
    for name in ("notes.txt", ".hidden.jpg", "x\n.jpg", "x" * 300 + ".jpg"):
        parquet_of([(name, b"x", 0)], path)
        assert "row 0 is called" in refused(source, tmp_path / "shards")
    parquet_of([("a.jpg", b"x", 0), ("b.jpg", b"y", 0), ("a.jpg", b"z", 0)], path)
    assert "of 3 train images 2 have names of their own" in refused(source, tmp_path / "shards")
    pyarrow = pytest.importorskip("pyarrow")
    names = pyarrow.array([b"caf\xe9.jpg"]).view(pyarrow.string())
    image = pyarrow.StructArray.from_arrays([pyarrow.array([b"x"]), names], ["bytes", "path"])
    pyarrow.parquet.write_table(pyarrow.table({"image": image, "label": [0]}), path)
    text = refused(source, tmp_path / "shards")
    assert f"{path} cannot be read as imagenet-1k's parquet ('utf-8' codec" in text


def test_a_killed_prepare_of_parquet_keeps_what_is_unpacked(
    images: Path, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "shards"
    rows, unpacked = parquet_module._rows, []

    def counted(path: Path) -> Iterator[tuple[str, str, bytes]]:
        unpacked.append(path.name)
        if len(unpacked) == 3:
            yield next(rows(path))
            raise KeyboardInterrupt
        yield from rows(path)

    monkeypatch.setattr(parquet_module, "_rows", counted)
    with pytest.raises(KeyboardInterrupt):
        made(parquet, target)
    changed = parquet / "data" / unpacked[0]
    os.utime(changed, ns=(1, 1))  # another file, for all that anyone knows
    made(parquet, target)
    assert unpacked[1] not in unpacked[3:] and len(unpacked[3:]) == len(set(unpacked[3:])) == 3
    made(images, tmp_path / "undisturbed")
    assert content(target) == content(tmp_path / "undisturbed")
