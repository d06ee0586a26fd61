"""Folders as sources: class order, layouts, and a clear line for every way to get it wrong."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, photo

from bn_inception.data import (
    DataConfig,
    DataKind,
    FolderSource,
    OnError,
    open_sources,
)
from bn_inception.data.source import class_order
from bn_inception.errors import UserError

MakeFolder = Callable[..., Path]


def opened(root: Path, kind: DataKind = DataKind.folder, **settings: object):
    return open_sources(DataConfig(kind=kind, root=str(root), **settings))


def test_images_labels_and_names(image_folder: MakeFolder) -> None:
    root = image_folder({"n02": 3, "n01": 2}, {"n01": 1, "n02": 2})
    (root / "train" / "n01" / "notes.txt").write_text("not an image")
    (root / "train" / "n01" / "._n01_0.JPEG").write_bytes(b"what macOS leaves behind")
    (root / "train" / "n01" / "z.PnG").write_bytes(encoded(photo(0), "PNG"))
    sources = opened(root)
    train = sources.train
    assert train.classes == sources.validation.classes == ("n01", "n02")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.labels.dtype == np.int64
    assert sources.validation.labels.tolist() == [0, 1, 1]
    expected = ["n01/n01_0.JPEG", "n01/n01_1.JPEG", "n01/z.PnG"]
    expected += [f"n02/n02_{i}.JPEG" for i in range(3)]
    assert [train.name(i) for i in range(len(train))] == [f"{root}/train/{e}" for e in expected]
    for index in range(len(train)):
        assert train.read(index) == Path(train.name(index)).read_bytes()
    assert sources.warnings == []


def test_numbers_sort_by_value_and_wnids_as_text(image_folder: MakeFolder) -> None:
    root = image_folder({str(i): 1 for i in range(12)})
    assert opened(root).train.classes == tuple(str(i) for i in range(12))
    assert class_order(["n10", "n9", "n1"]) == ["n1", "n10", "n9"]
    assert class_order(["10", "2", "x"]) == ["10", "2", "x"]


def test_first_classes(image_folder: MakeFolder) -> None:
    root = image_folder({"a": 2, "b": 3, "c": 4})
    sources = opened(root, first_classes=2)
    assert sources.train.classes == sources.validation.classes == ("a", "b")
    assert len(sources.train) == 5
    assert sources.train.fingerprint != opened(root).train.fingerprint
    with pytest.raises(UserError, match=r"first_classes: 4 is more than the 3 classes"):
        opened(root, first_classes=4)


def test_fingerprint_follows_content_not_place(image_folder: MakeFolder, tmp_path: Path) -> None:
    root = image_folder({"a": 2, "b": 3})
    first = opened(root)
    moved = tmp_path / "elsewhere"
    shutil.copytree(root, moved)
    assert opened(moved).train.fingerprint == first.train.fingerprint
    assert first.train.fingerprint != first.validation.fingerprint
    with open(moved / "train" / "a" / "a_0.JPEG", "ab") as file:
        file.write(b"x")
    changed = opened(moved).train.fingerprint
    assert changed != first.train.fingerprint
    os.rename(moved / "train" / "a" / "a_0.JPEG", moved / "train" / "a" / "a_9.JPEG")
    assert opened(moved).train.fingerprint not in (changed, first.train.fingerprint)


def test_imagenet_counts_are_checked(image_folder: MakeFolder) -> None:
    root = image_folder({"n01": 2, "n02": 2})
    warnings = opened(root, DataKind.imagenet).warnings
    expected = ["4 training images, ImageNet has 1,281,167", "2 validation images", "2 classes"]
    expected.append("2 classes are not named by a wnid such as n01440764, the first is n01")
    for warning, said in zip(warnings, expected, strict=True):
        assert said in warning and str(root) in warning and "\n" not in warning


def tiny_imagenet(root: Path) -> Path:
    """Tiny ImageNet as published."""
    for label, name in enumerate(("n01", "n02", "n03")):
        folder = root / "train" / name / "images"
        folder.mkdir(parents=True)
        (root / "train" / name / f"{name}_boxes.txt").write_text("")
        for i in range(2):
            (folder / f"{name}_{i}.JPEG").write_bytes(encoded(photo(label * 10 + i)))
    images = root / "val" / "images"
    images.mkdir(parents=True)
    lines = []
    for i, name in enumerate(("n02", "n01", "n02", "n03")):
        (images / f"val_{i}.JPEG").write_bytes(encoded(photo(i)))
        lines.append(f"val_{i}.JPEG\t{name}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root


def test_tiny_imagenet_as_published(tmp_path: Path) -> None:
    sources = opened(tiny_imagenet(tmp_path), DataKind.tiny_imagenet)
    assert sources.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert sources.train.name(3).endswith("train/n02/images/n02_1.JPEG")
    names = [Path(sources.validation.name(i)).name for i in range(4)]
    assert names == ["val_1.JPEG", "val_0.JPEG", "val_2.JPEG", "val_3.JPEG"]
    assert sources.validation.labels.tolist() == [0, 1, 1, 2]
    few = opened(tmp_path, DataKind.tiny_imagenet, first_classes=2)
    assert len(few.validation) == 3

    (tmp_path / "val" / "images" / "val_4.JPEG").write_bytes(encoded(photo(3)))
    with pytest.raises(UserError, match=r"val_4\.JPEG"):
        opened(tmp_path, DataKind.tiny_imagenet)
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG n01\n")
    with pytest.raises(UserError, match="line 1"):
        opened(tmp_path, DataKind.tiny_imagenet)


def message(root: Path, kind: DataKind = DataKind.folder) -> str:
    with pytest.raises(UserError) as caught:
        opened(root, kind)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("data.root: ")
    return text


def test_errors_name_the_path_and_the_layout(image_folder: MakeFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root: not given.*ROOT/train/<class>/<image>"):
        open_sources(DataConfig(kind=DataKind.folder))
    assert f"{tmp_path}/nowhere does not exist" in message(tmp_path / "nowhere")
    file = tmp_path / "file"
    file.write_text("")
    assert "is not a folder" in message(file)
    assert "has no train/ folder" in message(tmp_path)
    root = image_folder({"a": 1, "b": 1})
    shutil.move(root / "val", tmp_path / "kept")
    assert "has no val/ folder; expected ROOT/train/" in message(root)
    (root / "val").mkdir()
    assert "val has no class folders but nothing usable" in message(root)
    (root / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    flat = message(root)
    assert "no class folders but 1 images beside each other" in flat
    assert "bn-inception prepare reads the archive" in flat


def test_empty_class_and_differing_classes(image_folder: MakeFolder) -> None:
    root = image_folder({"a": 1, "b": 1})
    (root / "train" / "c").mkdir()
    assert f"{root}/train/c holds no images" in message(root)
    shutil.copy(root / "train" / "b" / "b_0.JPEG", root / "train" / "c")
    assert "1 classes are in one of train and val alone: c" in message(root)


def test_settings_are_checked() -> None:
    with pytest.raises(UserError, match="not read by data=synthetic"):
        DataConfig(root="/images")
    with pytest.raises(UserError, match=r"data\.workers: -1"):
        DataConfig(workers=-1)
    with pytest.raises(UserError, match=r"first_classes: 0"):
        DataConfig(first_classes=0)
    assert DataConfig(on_error=OnError.skip, workers=0).workers == 0


def test_a_million_names_cost_little() -> None:
    count = 200_000
    names = [b"n%08d/n%08d_%06d.JPEG" % (i // 1300, i // 1300, i) for i in range(count)]
    source = FolderSource("/images/train", ("x",), np.arange(count) // 1300, names)
    # 31 bytes of name, 8 of label.
    assert len(pickle.dumps(source)) < 40 * count
    assert source.name(199_999) == "/images/train/n00000153/n00000153_199999.JPEG"
    with pytest.raises(IndexError):
        source.name(count)
