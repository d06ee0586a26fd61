"""The embedded data set: deterministic, whole or rebuilt, and no matter of single pixels."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import run_ranks
from samples import content

from bn_inception.data import DataConfig, open_sources
from bn_inception.data.intake import synthetic
from bn_inception.errors import UserError


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "TRAIN_PER_CLASS", 3)
    monkeypatch.setattr(synthetic, "VAL_PER_CLASS", 2)


@pytest.mark.usefixtures("few")
def test_layout_and_determinism(tmp_path: Path) -> None:
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


def test_an_image_depends_on_its_own_number_only() -> None:
    late = np.asarray(synthetic.draw("rows", "val", 7))
    synthetic.draw("blank", "train", 0)
    np.testing.assert_array_equal(late, np.asarray(synthetic.draw("rows", "val", 7)))
    assert not np.array_equal(late, np.asarray(synthetic.draw("rows", "train", 7)))


def change(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)


def replace(file: Path) -> None:
    folder = file.parents[2]
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "damage",
    [Path.unlink, change, lambda file: shutil.copy(file, file.with_name("0009.jpg")), replace],
)
def test_what_is_not_the_set_is_named_and_stays(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    folder = synthetic.prepare(tmp_path)
    before = content(folder)
    assert synthetic.prepare(tmp_path) == folder and content(folder) == before
    damage(folder / "train" / "rows" / "0001.jpg")
    before = content(folder)
    with pytest.raises(UserError, match=rf"data\.cache: .*{folder.name}"):
        synthetic.prepare(tmp_path)
    assert content(folder) == before


@pytest.mark.usefixtures("few")
def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    folders = run_ranks(4, lambda rank: synthetic.prepare(tmp_path))
    assert folders == [synthetic.prepare(tmp_path)] * 4


def test_an_unusable_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.cache: .*file/cache"):
        synthetic.prepare(tmp_path / "file" / "cache")


def test_a_linear_classifier_on_pixels_knows_no_direction() -> None:
    """Ridge regression at 16x16 on 300 a class: a pattern begins anywhere. (Blank is lighter.)"""
    names = [name for name in synthetic.CLASSES if name != "blank"]

    def pixels(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        images = [synthetic.draw(name, split, i) for name in names for i in range(count)]
        small = [np.asarray(image.resize((16, 16), Image.Resampling.BOX)) for image in images]
        return np.stack(small).reshape(len(small), -1) / 255.0, np.arange(3).repeat(count)

    x, labels = pixels("train", 300)
    held_out, expected = pixels("val", 100)
    mean = x.mean(0)
    targets = np.eye(3)[labels] - 1 / 3
    for ridge in (1.0, 30.0, 1000.0):
        weights = np.linalg.solve(
            (x - mean).T @ (x - mean) + ridge * np.eye(x.shape[1]), (x - mean).T @ targets
        )
        accuracy = (((held_out - mean) @ weights).argmax(1) == expected).mean()
        assert accuracy < 0.55
