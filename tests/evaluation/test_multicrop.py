"""Averaging over crops: equal to the plain way of doing it, and done in less memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation.networks import small_network
from numpy.typing import NDArray
from PIL import Image, ImageOps
from small_runs import write_images
from torch import Tensor, nn

from bn_inception import UserError
from bn_inception.data import (
    DataConfig,
    DataKind,
    FolderSource,
    OnError,
    open_sources,
    to_input,
    validation_batches,
)
from bn_inception.data.pixels.decode import decode
from bn_inception.evaluation import evaluate
from bn_inception.evaluation.crops import CropSetting, crops
from bn_inception.evaluation.multicrop import MultiCropResult, evaluate_crops
from bn_inception.record.predictions import NEVER

CPU = torch.device("cpu")
SIZE = 16
SHAPES = [(20, 26), (26, 20), (24, 24), (1, 1), (90, 2), (33, 47)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """Six images of 3 classes in six shapes, PNG so that they are exact."""
    root = tmp_path_factory.mktemp("shapes")
    generator = np.random.default_rng(1)
    for split in ("train", "val"):
        for number, (width, height) in enumerate(SHAPES):
            folder = root / split / f"n{number % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            coarse = (height // 5 + 1, width // 5 + 1, 3)
            image = Image.fromarray(generator.integers(0, 256, coarse, np.uint8))
            image = image.resize((width, height), Image.Resampling.BICUBIC)
            image.save(folder / f"{number}.png")
    return open_sources(DataConfig(DataKind.folder, str(root))).validation


def run(
    network: nn.Module,
    source: FolderSource,
    setting: CropSetting,
    batch: int = 64,
    workers: int = 0,
) -> MultiCropResult:
    return evaluate_crops(
        network, source, setting=setting, image_size=SIZE, batch=batch, workers=workers, device=CPU
    )


def straightforward(
    network: nn.Module, source: FolderSource, setting: CropSetting
) -> NDArray[np.float64]:
    """Every crop cut, resized and mirrored by Pillow, and put through the network, one by one."""
    rows = []
    for index in range(len(source)):
        softmax = []
        image = decode(source.read(index), source.name(index))
        for crop in crops(setting, *image.size, SIZE):
            part = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=crop.box)
            if crop.mirrored:
                part = ImageOps.mirror(part)
            pixels = torch.from_numpy(np.array(part).transpose(2, 0, 1)[None].copy())
            with torch.inference_mode():
                softmax.append(network(to_input(pixels)).softmax(1)[0].double().numpy())
        rows.append(np.stack(softmax))
    return np.stack(rows)  # images x crops x classes


@pytest.mark.parametrize("setting", list(CropSetting))
def test_equal_to_the_straightforward_way(source: FolderSource, setting: CropSetting) -> None:
    network = small_network()
    result, plain = run(network, source, setting), straightforward(network, source, setting)
    mean = plain.mean(1)
    # A grey level here and there (`crops.cut_plan`), to which so narrow a network is sensitive.
    assert np.abs(result.probabilities - mean).max() < 5e-3
    assert mean.std(0).max() > 0.01  # not the same for all images
    # The curve: the running mean over the crops in their order.
    running = plain.cumsum(1) / np.arange(1, setting.count + 1)[None, :, None]
    own = np.take_along_axis(running, source.labels[:, None, None], 2)
    surely, possibly = (
        ((running > own - margin).sum(2) - (margin > 0) == 0).sum(0) for margin in (5e-3, -5e-3)
    )
    correct = result.correct_by_crops[:, 0]
    assert (surely <= correct).all() and (correct <= possibly).all()
    assert (surely < possibly).mean() < 0.5  # few are so undecided that rounding could decide
    assert 0 < correct.max() < len(source) or setting is CropSetting.single
    assert result.correct_by_crops[:, 1].tolist() == [len(source)] * setting.count  # 3 classes
    assert result.count - result.wrong == correct[-1]
    assert (result.predicted == mean.argmax(1)).mean() > 0.8


def test_single_crop_agrees_with_trainings_evaluation(tmp_path: Path) -> None:
    root = write_images(tmp_path, classes=7)
    source = open_sources(DataConfig(DataKind.folder, str(root))).validation
    network = small_network(7)
    batches = validation_batches(source, image_size=SIZE, batch=8, workers=0, on_error=OnError.fail)
    monitored = evaluate(network, batches, CPU)
    result = run(network, source, CropSetting.single)
    assert monitored is not None and 0 < monitored.correct < monitored.count
    assert result.count - result.wrong == monitored.correct
    assert result.count - result.wrong_top5 == monitored.correct_top5


@pytest.mark.parametrize("setting", list(CropSetting))
def test_workers_and_batches_change_nothing(source: FolderSource, setting: CropSetting) -> None:
    network = small_network()
    one = run(network, source, setting)
    for batch, workers in ((64, 2), (1, 0), (7, 0), (1000, 0)):
        other = run(network, source, setting, batch, workers)
        assert np.allclose(other.probabilities, one.probabilities, atol=1e-3)
        assert other.ranks.tolist() == one.ranks.tolist()
        assert other.correct_by_crops.tolist() == one.correct_by_crops.tolist()
        assert other.crops == one.crops


class Counting(nn.Module):
    """Notes the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        self.sizes.append(len(images))
        return images.mean((2, 3))


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_the_network_never_sees_more_than_a_batch(source: FolderSource, batch: int) -> None:
    network = Counting().train()
    result = run(network, source, CropSetting.gn144, batch)
    assert max(network.sizes) <= batch
    # Square images repeat crops, which are not computed again.
    assert sum(network.sizes) == result.crops == 2 * (4 * 63 + 2 * 21)
    assert network.training


def test_an_image_is_read_once(source: FolderSource, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = FolderSource.read

    def counted(self: FolderSource, index: int) -> bytes:
        read.append(index)
        return original(self, index)

    monkeypatch.setattr(FolderSource, "read", counted)
    done: list[int] = []
    evaluate_crops(
        Counting(), source, setting=CropSetting.gn144, image_size=SIZE, batch=4, workers=0,
        device=CPU, progress=done.append,
    )  # fmt: skip
    assert read == list(range(len(source)))
    assert done == list(range(1, len(source) + 1))


@pytest.mark.parametrize("setting", list(CropSetting))
def test_unreadable_images_are_errors_and_named(tmp_path: Path, setting: CropSetting) -> None:
    root = write_images(tmp_path)
    for name in ("n0000/0.JPEG", "n0002/4.JPEG"):
        (root / "val" / name).write_bytes(b"no image")
    source = open_sources(DataConfig(DataKind.folder, str(root))).validation
    result = run(small_network(), source, setting, batch=4)
    assert sorted(result.unreadable) == [0, 14]
    assert "not an image" in result.unreadable[0]
    assert result.count == 15
    for index in (0, 14):
        assert not result.probabilities[index].any()
        assert (result.ranks[index], result.predicted[index]) == (NEVER, -1)
    assert result.probabilities[1].any()
    assert result.wrong >= 2 and result.wrong_top5 == 2  # three classes: top-5 is all of them
    assert result.correct_by_crops[:, 1].max() == 13
    assert result.correct_by_crops[-1, 0] == result.count - result.wrong


def test_no_readable_image_at_all_is_one_line(tmp_path: Path) -> None:
    root = write_images(tmp_path, classes=2, val=1)
    for path in (root / "val").rglob("*.JPEG"):
        path.write_bytes(b"")
    source = open_sources(DataConfig(DataKind.folder, str(root))).validation
    with pytest.raises(UserError, match=r"none of 2 images.*0\.JPEG: the file is empty"):
        run(small_network(2), source, CropSetting.ten)


def test_a_diverged_network_is_refused(source: FolderSource) -> None:
    network = small_network()
    network.classifier.bias.data[1] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        run(network, source, CropSetting.single)


def test_unknown_labels_are_never_correct(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "labels", np.full(len(source), -1, np.int64))
    result = run(small_network(), source, CropSetting.single)
    assert result.ranks.tolist() == [NEVER] * len(source)
    assert result.predicted.min() >= 0 and result.probabilities.any(axis=1).all()
