"""The evaluator: equal to the plain way of doing it, and done in less memory."""

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
    ValidationBatch,
    open_sources,
    to_input,
    validation_batches,
)
from bn_inception.data.pixels.decode import decode
from bn_inception.evaluation.crops import RULES, SINGLE, CropRule, crop_rule
from bn_inception.evaluation.evaluate import SourceResult, evaluate, evaluate_source

CPU = torch.device("cpu")
SIZE = 16
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
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
    network: nn.Module, source: FolderSource, rule: CropRule, batch_size: int = 64, workers: int = 0
) -> SourceResult:
    return evaluate_source(
        network, source, rule, image_size=SIZE, batch_size=batch_size, workers=workers, device=CPU
    )


def straightforward(
    network: nn.Module, source: FolderSource, rule: CropRule
) -> NDArray[np.float64]:
    """Every crop cut, resized and mirrored by Pillow, and put through the network, one by one."""
    rows = []
    for index in range(len(source)):
        softmax = []
        image = decode(source.read(index), source.name(index))
        for box in rule.boxes(*image.size, SIZE):
            part = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
            for view in [part, ImageOps.mirror(part)] if rule.mirrored else [part]:
                pixels = torch.from_numpy(np.array(view).transpose(2, 0, 1)[None].copy())
                with torch.inference_mode():
                    softmax.append(network(to_input(pixels)).softmax(1)[0].double().numpy())
        rows.append(np.stack(softmax))
    return np.stack(rows)  # images x crops x classes


@every_rule
def test_equal_to_the_straightforward_way(source: FolderSource, rule: CropRule) -> None:
    network = small_network()
    result, plain = run(network, source, rule), straightforward(network, source, rule)
    mean = plain.mean(1)
    assert np.abs(result.probabilities - mean).max() < 2e-3
    assert mean.std(0).max() > 0.01  # not the same for all images
    # The curve: the running mean over the crops in their order.
    running = plain.cumsum(1) / np.arange(1, rule.crops + 1)[None, :, None]
    own = np.take_along_axis(running, source.labels[:, None, None], 2)
    surely, possibly = (
        ((running > own - margin).sum(2) - (margin > 0) == 0).sum(0) for margin in (2e-3, -2e-3)
    )
    correct = result.counts.correct_by_crops[:, 0]
    assert (surely <= correct).all() and (correct <= possibly).all()
    assert (surely < possibly).mean() < 0.5  # few are so undecided that rounding could decide
    assert 0 < correct.max() < len(source) or rule is SINGLE
    assert result.counts.correct_by_crops[:, 1].tolist() == [len(source)] * rule.crops  # 3 classes
    assert correct[-1] == len(source) - sum(result.confused.values())
    assert all(label != likeliest for label, likeliest in result.confused)
    first = np.take_along_axis(plain[:, 0], source.labels[:, None], 1)
    assert result.counts.loss == pytest.approx(-np.log(first).mean(), abs=2e-3)


class Fixed(nn.Module):
    """Gives the logits it was made with, whatever the images."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


@pytest.mark.parametrize("ties", [False, True])
def test_the_fifth_class_counts_and_the_sixth_does_not(ties: bool) -> None:
    """Image i's label is behind i classes; with `ties`, equal to them and of a higher number."""
    labels = torch.arange(8)
    logits = torch.zeros(8, 8) if ties else (labels < labels[:, None]) * 2.0 + torch.eye(8)
    batch = ValidationBatch(
        images=torch.zeros(8, 3, SIZE, SIZE, dtype=torch.uint8),
        labels=labels,
        readable=labels >= 0,
        unreadable=[],
        rows=labels[:, None],
    )
    result = evaluate(Fixed(logits), [batch], CPU)
    assert result is not None
    assert (result.errors.wrong, result.errors.wrong_top5, result.count) == (7, 3, 8)


@every_rule
def test_workers_and_batches_change_nothing(source: FolderSource, rule: CropRule) -> None:
    network = small_network()
    one = run(network, source, rule)
    for batch_size, workers in ((64, 2), (1, 0), (7, 0), (1000, 0)):
        other = run(network, source, rule, batch_size, workers)
        assert np.allclose(other.probabilities, one.probabilities, atol=1e-3)
        assert other.confused == one.confused
        assert other.counts.correct_by_crops.tolist() == one.counts.correct_by_crops.tolist()


class Counting(nn.Module):
    """Notes the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        self.sizes.append(len(images))
        return images.mean((2, 3))


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_network_never_sees_more_than_a_batch_and_an_image_is_read_once(
    source: FolderSource, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = FolderSource.read
    monkeypatch.setattr(
        FolderSource, "read", lambda self, index: (read.append(index), original(self, index))[1]
    )
    network = Counting().train()
    run(network, source, crop_rule("144"), batch_size)
    assert max(network.sizes) <= batch_size
    # Square images repeat crops, which are not computed again.
    assert sum(network.sizes) == 2 * (4 * 63 + 2 * 21)
    assert read == list(range(len(source)))
    assert network.training


@every_rule
def test_unreadable_images_are_errors_and_named(tmp_path: Path, rule: CropRule) -> None:
    root = write_images(tmp_path)
    for name in ("n0000/0.JPEG", "n0002/4.JPEG"):
        (root / "val" / name).write_bytes(b"no image")
    source = open_sources(DataConfig(DataKind.folder, str(root))).validation
    result = run(small_network(), source, rule, batch_size=4)
    counts, errors = result.counts, result.counts.errors
    assert sorted(result.unreadable) == [0, 14]
    assert "not an image" in result.unreadable[0]
    assert (counts.count, counts.unreadable) == (15, 2)
    for index in (0, 14):
        assert not result.probabilities[index].any()
    assert result.probabilities[1].any() and np.isfinite(counts.loss)
    assert errors.wrong >= 2 and errors.wrong_top5 == 2  # three classes: top-5 is all of them
    assert counts.correct_by_crops[:, 1].max() == 13
    for path in (root / "val").rglob("*.JPEG"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of 15 images.*0\.JPEG: the file is empty"):
        run(small_network(), source, rule)


def test_a_diverged_network_is_refused_and_while_training_never_right(source: FolderSource) -> None:
    network = small_network()
    network.classifier.bias.data[1] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        run(network, source, SINGLE)
    batches = validation_batches(source, image_size=SIZE, batch=8, workers=0, on_error=OnError.fail)
    counts = evaluate(network, batches, CPU)
    assert counts is not None and np.isnan(counts.loss)
    assert (counts.top1, counts.top5) == (0, 0)
