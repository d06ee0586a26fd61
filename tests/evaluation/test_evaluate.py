"""The evaluator equals the plain way in less memory; crops are GN section 7 to the letter."""

import numpy as np
import pytest
import torch
from evaluation.networks import small_network
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from small_runs import write_images
from torch import nn

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
from bn_inception.data.pixels.backend import PillowPicture
from bn_inception.data.pixels.crops import cut_crops, cut_single, single_crop
from bn_inception.data.pixels.decode import decode
from bn_inception.evaluation.crops import RULES, SINGLE, crop_rule, gn144, ten
from bn_inception.evaluation.evaluate import evaluate, evaluate_source

CPU = torch.device("cpu")
SIZE = 16
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
SIDES = st.one_of(st.integers(1, 3), st.integers(4, 700), st.integers(10_000, 20_000))
SIZES = st.sampled_from([13, 16, 32, 64, 224])


def run(network, source, rule, batch_size=64, workers=0):
    return evaluate_source(
        network, source, rule, image_size=SIZE, batch_size=batch_size, workers=workers, device=CPU
    )


def straightforward(network, source, rule):
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
def test_equal_to_the_straightforward_way(source, rule):
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

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return self.logits


@pytest.mark.parametrize("ties", [False, True])
def test_the_fifth_class_counts_and_the_sixth_does_not(ties):
    """Image i's label is behind i classes; with `ties`, equal to them and of a higher number."""
    labels, classes = torch.arange(7), torch.arange(8)
    behind, own = classes < labels[:, None], classes == labels[:, None]
    logits = torch.zeros(7, 8) if ties else 2.0 * behind + 1.0 * own
    batch = ValidationBatch(
        images=torch.zeros(7, 3, SIZE, SIZE, dtype=torch.uint8),
        labels=labels,
        readable=labels >= 0,
        unreadable=[],
        rows=labels[:, None],
    )
    result = evaluate(Fixed(logits), [batch], CPU)
    assert (result.errors.wrong, result.errors.wrong_top5, result.count) == (6, 2, 7)


@every_rule
def test_workers_and_batches_change_nothing(source, rule):
    network = small_network()
    one = run(network, source, rule)
    for batch_size, workers in ((64, 2), (1, 0), (7, 0), (1000, 0)):
        other = run(network, source, rule, batch_size, workers)
        assert np.allclose(other.probabilities, one.probabilities, atol=1e-3)
        assert other.confused == one.confused
        assert other.counts.correct_by_crops.tolist() == one.counts.correct_by_crops.tolist()


class Counting(nn.Module):
    """Notes the sizes of its batches."""

    def __init__(self):
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, images):
        assert not self.training
        self.sizes.append(len(images))
        return images.mean((2, 3))


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_network_never_sees_more_than_a_batch_and_an_image_is_read_once(
    source, batch_size, monkeypatch
):
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
def test_unreadable_images_are_errors_and_named(tmp_path, rule):
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


def test_a_diverged_network_is_refused_and_while_training_never_right(source):
    network = small_network()
    network.classifier.bias.data[1] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        run(network, source, SINGLE)
    batches = validation_batches(source, image_size=SIZE, batch=8, workers=0, on_error=OnError.fail)
    counts = evaluate(network, batches, CPU)
    assert counts is not None and np.isnan(counts.loss)
    assert (counts.top1, counts.top5) == (0, 0)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (300, 300)])
def test_the_crops_of_gn_and_the_ten_by_the_papers_words(width, height):
    def five(scale, x, y, far_x, far_y):
        """Centre and corners of 224 pixels where the shorter side has `scale`, in source pixels."""
        unit = min(width, height) / scale
        places = [(far_x / 2, far_y / 2), (0, 0), (far_x, 0), (0, far_y), (far_x, far_y)]
        return [[unit * (x + dx), unit * (y + dy), unit * (x + dx + 224), unit * (y + dy + 224)]
                for dx, dy in places]  # fmt: skip

    expected = []
    for scale in (256, 288, 320, 352):
        unit = min(width, height) / scale
        spare, far = max(width, height) / unit - scale, scale - 224
        for along in (spare / 2, 0.0, spare):
            x, y = (along, 0.0) if width >= height else (0.0, along)
            expected += five(scale, x, y, far, far)
            expected.append([unit * x, unit * y, unit * (x + scale), unit * (y + scale)])
    assert np.allclose(gn144(width, height, 224), expected, atol=1e-9)
    unit = min(width, height) / 256
    whole = five(256, 0, 0, width / unit - 224, height / unit - 224)
    assert np.allclose(ten(width, height, 224), whole, atol=1e-9)


@every_rule
@given(width=SIDES, height=SIDES, size=SIZES)
def test_boxes_are_squares_inside_the_image_and_a_portrait_is_a_landscape_turned(
    rule, width, height, size
):
    boxes = rule.boxes(width, height, size)
    assert len(boxes) == {"single": 1, "10": 5, "144": 72}[rule.name]
    assert np.allclose(boxes[0], single_crop(width, height, size), atol=1e-9)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert abs((right - left) - (bottom - top)) <= 1e-9 * max(width, height)
    turned = sorted((y0, x0, y1, x1) for x0, y0, x1, y1 in rule.boxes(height, width, size))
    assert np.allclose(sorted(boxes), turned)


@pytest.mark.parametrize(
    ("rule", "width", "height", "distinct"),
    # 4 scales x 3 squares x 5 crops, and 3 whole squares that all scales share.
    [("144", 120, 90, 63), ("144", 64, 64, 4 * 5 + 1), ("10", 64, 64, 5), ("single", 1, 1, 1),
     ("144", 700, 1, 63), ("10", 3, 500, 5)],
)  # fmt: skip
def test_a_crop_is_its_box_resized_and_none_is_cut_twice(rule, width, height, distinct):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image, boxes = Image.fromarray(noise), crop_rule(rule).boxes
    pixels, places = cut_crops(PillowPicture(image), boxes, 32)
    assert len(pixels) == distinct
    for box, place in zip(boxes(width, height, 32), places, strict=True):
        alone = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR, box=box))
        assert np.array_equal(pixels[place], alone)
    if rule == SINGLE.name:
        assert np.array_equal(pixels[0].transpose(2, 0, 1), cut_single(PillowPicture(image), 32))
