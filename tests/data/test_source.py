"""Folders and the embedded set: class order, layouts, and a clear line for every mistake."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import run_ranks
from samples import content, encoded, opened, photo, shards_of

from bn_inception.data import Backend, DataConfig, DataKind, FolderSource, open_sources
from bn_inception.data.intake import synthetic
from bn_inception.data.loader import read_image
from bn_inception.data.pixels.decode import UnreadableImage
from bn_inception.data.source import class_order
from bn_inception.errors import UserError


def test_images_labels_and_names(image_folder):
    root = image_folder({"n02": 3, "n01": 2}, {"n01": 1, "n02": 2})
    (root / "train" / "n01" / "notes.txt").write_text("not an image")
    (root / "train" / "n01" / "._n01_0.JPEG").write_bytes(b"what macOS leaves behind")
    (root / "train" / "n01" / "z.PnG").write_bytes(encoded(photo(0), "PNG"))
    sources = opened(root)
    train = sources.train
    assert train.classes == sources.validation.classes == ("n01", "n02")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and train.labels.dtype == np.int64
    assert sources.validation.labels.tolist() == [0, 1, 1]
    expected = ["n01/n01_0.JPEG", "n01/n01_1.JPEG", "n01/z.PnG"]
    expected += [f"n02/n02_{i}.JPEG" for i in range(3)]
    assert [train.name(i) for i in range(len(train))] == [f"{root}/train/{e}" for e in expected]
    assert all(train.read(i) == Path(train.name(i)).read_bytes() for i in range(len(train)))
    assert sources.warnings == []


def test_a_link_that_leads_nowhere_fails_by_name(image_folder):
    root = image_folder({"a": 2, "b": 2})
    (root / "train" / "b" / "z.png").symlink_to("nowhere.png")
    with pytest.raises(UnreadableImage, match=r"b/z\.png"):
        read_image(opened(root).train, 4, Backend.pillow)


def test_numbers_sort_by_value_and_wnids_as_text(image_folder):
    root = image_folder({str(i): 1 for i in range(12)})
    assert opened(root).train.classes == tuple(str(i) for i in range(12))
    assert class_order(["n10", "n9", "n1"]) == ["n1", "n10", "n9"]
    assert class_order(["10", "2", "x"]) == ["10", "2", "x"]


def test_fingerprint_follows_content_not_place(image_folder, tmp_path):
    root = image_folder({"a": 2, "b": 3})
    first = opened(root)
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    assert opened(moved).train.fingerprint == first.train.fingerprint
    assert first.train.fingerprint != first.validation.fingerprint
    with open(moved / "train" / "a" / "a_0.JPEG", "ab") as file:
        file.write(b"x")
    changed = opened(moved).train.fingerprint
    assert changed != first.train.fingerprint
    os.rename(moved / "train" / "a" / "a_0.JPEG", moved / "train" / "a" / "a_9.JPEG")
    assert opened(moved).train.fingerprint not in (changed, first.train.fingerprint)


def test_tiny_imagenet_as_published(image_folder):
    root = image_folder(dict.fromkeys(("n01", "n02", "n03"), 2))
    for folder in (root / "train").iterdir():
        folder.rename(root / "images")
        folder.mkdir()
        (root / "images").rename(folder / "images")
        (folder / f"{folder.name}_boxes.txt").write_text("")
    val = root / "val"
    (val / "images").mkdir()
    for i in range(4):
        (val / "images" / f"val_{i}.JPEG").write_bytes(encoded(photo(i)))
    lines = [f"val_{i}.JPEG\tn0{c}\t0\t0\t62\t62\n" for i, c in enumerate((2, 1, 2, 3))]
    (val / "val_annotations.txt").write_text("".join(lines))

    sources = opened(root, DataKind.tiny_imagenet)
    assert sources.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert sources.train.name(3).endswith("train/n02/images/n02_1.JPEG")
    names = [Path(sources.validation.name(i)).name for i in range(4)]
    assert names == ["val_1.JPEG", "val_0.JPEG", "val_2.JPEG", "val_3.JPEG"]
    assert sources.validation.labels.tolist() == [0, 1, 1, 2]
    assert len(opened(root, DataKind.tiny_imagenet, first_classes=2).validation) == 3
    shards = opened(shards_of(root, root.parent / "shards"), DataKind.shards)
    assert shards.fingerprint == sources.fingerprint  # `prepare` reads both layouts too
    (val / "images" / "val_4.JPEG").write_bytes(encoded(photo(3)))
    assert "the first is images/val_4.JPEG" in message(root, DataKind.tiny_imagenet)
    (val / "val_annotations.txt").write_text("val_0.JPEG n01\n")
    assert "line 1" in message(root, DataKind.tiny_imagenet)


def message(root, kind=DataKind.folder):
    with pytest.raises(UserError) as caught:
        opened(root, kind)
    text = str(caught.value)
    assert "\n" not in text and text.startswith("data.root: ")
    return text


def test_errors_name_the_path_and_the_layout(image_folder, tmp_path):
    with pytest.raises(UserError, match=r"data\.root: not given.*ROOT/train/<class>/<image>"):
        open_sources(DataConfig(kind=DataKind.folder))
    with pytest.raises(UserError, match=r"data\.root: not given.*bn-inception prepare"):
        open_sources(DataConfig(kind=DataKind.shards))
    assert f"{tmp_path}/nowhere does not exist" in message(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "is not a folder" in message(tmp_path / "file")
    assert "has no train/ folder" in message(tmp_path)
    root = image_folder({"a": 1, "b": 1})
    (root / "train" / "c").mkdir()
    assert f"{root}/train/c holds no images" in message(root)
    shutil.copy(root / "train" / "b" / "b_0.JPEG", root / "train" / "c")
    assert "1 classes are in one of train and val alone: c" in message(root)
    shutil.rmtree(root / "val")
    assert "has no val/ folder; expected ROOT/train/" in message(root)
    (root / "val").mkdir()
    assert "val has no class folders but nothing usable" in message(root)
    (root / "val" / "ILSVRC2012_val_00000001.JPEG").touch()
    flat = message(root)
    assert "no class folders but 1 images beside each other" in flat
    assert "bn-inception prepare reads the archive" in flat


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("root", "/images", "'/images' is not read"),
        ("workers", -1, "-1"),
        ("first_classes", 0, "0"),
    ],
)
def test_settings_are_checked(key, value, said):
    with pytest.raises(UserError, match=rf"data\.{key}: {said}"):
        DataConfig(**{key: value})


def test_a_million_names_cost_little():
    count = 200_000
    names = [b"n%08d/n%08d_%06d.JPEG" % (i // 1300, i // 1300, i) for i in range(count)]
    source = FolderSource("/images/train", ("x",), np.arange(count) // 1300, names)
    assert len(pickle.dumps(source)) < 40 * count  # 31 bytes of name, 8 of label
    assert source.name(199_999) == "/images/train/n00000153/n00000153_199999.JPEG"


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(synthetic, "TRAIN_PER_CLASS", 3)
    monkeypatch.setattr(synthetic, "VAL_PER_CLASS", 2)


@pytest.mark.usefixtures("few")
def test_layout_and_determinism(tmp_path):
    one, other = (synthetic.prepare(tmp_path / name) for name in ("one", "other"))
    assert one.name == other.name
    assert content(one) == content(other)
    sources = open_sources(DataConfig(cache=str(tmp_path / "one")))
    assert sources.train.classes == synthetic.CLASSES
    assert len(sources.train) == 12
    assert len(sources.validation) == 8
    # Every image is another one; and a manifest.
    assert len(set(content(one).values())) == 21
    assert Image.open(sources.train.name(0)).size == (64, 64)
    assert sorted(os.listdir(tmp_path / "one")) == [one.name, "synthetic.lock"]


def replace(file):
    folder = file.parents[2]
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda file: file.write_bytes(file.read_bytes()[:-5] + b"other"),
        lambda file: shutil.copy(file, file.with_name("0009.jpg")),
        replace,
    ],
)
def test_what_is_not_the_set_is_named_and_stays(tmp_path, damage):
    folder = synthetic.prepare(tmp_path)
    before = content(folder)
    assert synthetic.prepare(tmp_path) == folder and content(folder) == before
    damage(folder / "train" / "rows" / "0001.jpg")
    before = content(folder)
    with pytest.raises(UserError, match=rf"data\.cache: .*{folder.name}"):
        synthetic.prepare(tmp_path)
    assert content(folder) == before


@pytest.mark.usefixtures("few")
def test_processes_that_start_together_agree(tmp_path):
    folders = run_ranks(4, lambda rank: synthetic.prepare(tmp_path))
    assert folders == [synthetic.prepare(tmp_path)] * 4


def test_an_unusable_cache_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.cache: .*file/cache"):
        synthetic.prepare(tmp_path / "file" / "cache")


def test_a_linear_classifier_on_pixels_knows_no_direction():
    """Ridge regression at 16x16 on 300 a class: a pattern begins anywhere. (Blank is lighter.)"""
    names = [name for name in synthetic.CLASSES if name != "blank"]

    def pixels(split, count):
        images = [synthetic.draw(name, split, i) for name in names for i in range(count)]
        small = [np.asarray(image.resize((16, 16), Image.Resampling.BOX)) for image in images]
        return np.stack(small).reshape(len(small), -1) / 255.0, np.arange(3).repeat(count)

    x, labels = pixels("train", 300)
    held_out, expected = pixels("val", 100)
    x, held_out = x - x.mean(0), held_out - x.mean(0)
    targets = np.eye(3)[labels] - 1 / 3
    for ridge in (1.0, 30.0, 1000.0):
        weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ targets)
        assert ((held_out @ weights).argmax(1) == expected).mean() < 0.55
