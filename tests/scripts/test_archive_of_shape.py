"""Archives of ImageNet's shape: prepare takes them, and the classes come out as they should."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bn_inception.data.prepare import PrepareConfig, prepare
from bn_inception.data.source import DataConfig, DataKind, open_sources
from bn_inception.errors import UserError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "archive_of_shape.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("archive_of_shape", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("divisor", "total", "smallest", "largest"),
    [(1, 1_281_167, 732, 1300), (10, 128_117, 73, 130), (50, 25_623, 15, 26)],
)
def test_the_counts_are_imagenets(
    script: ModuleType, divisor: int, total: int, smallest: int, largest: int
) -> None:
    sizes = script.class_sizes(divisor)
    assert (len(sizes), sizes.sum(), sizes.min(), sizes.max()) == (1000, total, smallest, largest)
    assert (sizes == largest).sum() == 895


def test_archives_go_through_prepare(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("scipy.io")
    # A thousand classes take seconds; ten of them show as much.
    monkeypatch.setattr(script, "CLASSES", 10)
    monkeypatch.setattr(script, "class_sizes", lambda divisor: np.arange(3, 13))
    monkeypatch.setattr(script.results, "IMAGENET_VALIDATION_IMAGES", 1000)
    said: list[str] = []
    script.make([str(tmp_path / "downloads"), "divisor=50"], said.append)
    assert "75 images of 10 classes" in said[0] and "20 images of 10 classes" in said[1]
    config = PrepareConfig(str(tmp_path / "downloads"), str(tmp_path / "shards"), workers=0)
    prepare(config, said.append, lambda what, done, total: None)
    sources = open_sources(DataConfig(DataKind.shards, str(tmp_path / "shards")))
    assert sources.train.classes == tuple(f"n{1_440_764 + 13_577 * n:08d}" for n in range(10))
    assert np.bincount(sources.train.labels).tolist() == list(range(3, 13))
    assert np.bincount(sources.validation.labels).tolist() == [2] * 10
    both = [source.read(i) for source in vars(sources).values() for i in range(len(source))]
    assert len(set(both)) == 95


def test_what_is_there_already_is_left(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    for arguments, named in (
        ([str(tmp_path)], "is there already"),
        ([], "give one folder"),
        ([str(tmp_path), "divisor=51"], "give divisor=1 to 50"),
        ([str(tmp_path), "divisor=x"], "give divisor=1 to 50"),
    ):
        with pytest.raises(UserError, match=named):
            script.make(arguments, print)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
