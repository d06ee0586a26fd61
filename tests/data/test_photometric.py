"""Batched distortion against a per-pixel reference with colorsys."""

import colorsys

import numpy as np
import pytest
import torch

from bn_inception.data.pixels.photometric import BRIGHTNESS, Photometric, draw_factors, to_input


def through_hsv(image, saturation, hue):
    """TensorFlow's adjust_saturation, then adjust_hue, one pixel at a time; (3, S, S)."""
    out = np.empty_like(image)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            pixel = [float(value) for value in image[:, y, x]]
            h, s, v = colorsys.rgb_to_hsv(*pixel)
            if v <= 0:
                h, s = 0.0, 0.0
            s = min(max(s * saturation, 0.0), 1.0)
            out[:, y, x] = colorsys.hsv_to_rgb((h + hue) % 1, s, v)
    return out


def contrast(image, factor):
    mean = image.mean((1, 2), keepdims=True)
    return (image - mean) * factor + mean


def reference(image, factors):
    """One image, (3, S, S) uint8, in float64."""
    x = image.astype(np.float64) / 255
    if len(factors) == 3:
        delta, saturation, order = factors.tolist()
        if order == 0:
            x = through_hsv(x + delta, saturation, 0.0)
        else:
            x = through_hsv(x, saturation, 0.0) + delta
    elif len(factors) == 5:
        delta, saturation, hue, factor, order = factors.tolist()
        x = x + delta
        if order == 0:
            x = contrast(through_hsv(x, saturation, hue), factor)
        else:
            x = through_hsv(contrast(x, factor), saturation, hue)
    return np.clip(x, 0, 1) * 2 - 1


def batch(kind, count=24, side=8):
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    # Black, white, grey, and pure colours: the corners of HSV.
    corners = [[0] * 3, [255] * 3, [128] * 3, [255, 0, 0], [0, 255, 255]]
    images[:5] = np.array(corners, np.uint8)[..., None, None]
    images[5, :, ::2] = 3  # nearly black: below zero after a darker brightness
    factors = np.stack([draw_factors(kind, random) for _ in range(count)])
    return torch.from_numpy(images), torch.from_numpy(factors)


@pytest.mark.parametrize("kind", list(Photometric))
def test_equals_the_reference(kind):
    images, factors = batch(kind)
    result = to_input(images, factors)
    assert result.dtype == torch.float32 and result.shape == images.shape
    for image, drawn, got in zip(images, factors, result, strict=True):
        expected = reference(image.numpy(), drawn.numpy())
        np.testing.assert_allclose(got.numpy(), expected, atol=2e-5)
    assert result.min() >= -1 and result.max() <= 1


@pytest.mark.parametrize("kind", list(Photometric))
def test_an_image_does_not_depend_on_batch_memory_format_or_threads(kind):
    images, factors = batch(kind, count=33, side=96)
    threads = torch.get_num_threads()
    together = to_input(images, factors)
    torch.set_num_threads(2)
    assert torch.equal(together, to_input(images, factors))
    torch.set_num_threads(threads)
    last = to_input(images.contiguous(memory_format=torch.channels_last), factors)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert together.is_contiguous()
    assert torch.equal(together, last)
    for i in range(len(images)):
        alone = to_input(images[i : i + 1], factors[i : i + 1])
        assert torch.equal(alone[0], together[i])


def test_no_distortion_is_plain_scaling():
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([-1.0, 1.0, -0.6]).view(1, 3, 1, 1)
    torch.testing.assert_close(to_input(images), expected)
    assert torch.equal(to_input(images), to_input(images, torch.empty(1, 0)))
    assert images.flatten().tolist() == [0, 255, 51]  # not written to


def test_ranges_and_orders_of_factors():
    random = np.random.default_rng(0)
    full = np.stack([draw_factors(Photometric.full, random) for _ in range(2000)])
    low = np.array([-BRIGHTNESS, 0.5, -0.2, 0.5])
    high = np.array([BRIGHTNESS, 1.5, 0.2, 1.5])
    assert ((low - 1e-6 <= full[:, :4]) & (full[:, :4] <= high + 1e-6)).all()
    np.testing.assert_allclose(full[:, :4].mean(0), (low + high) / 2, atol=0.03)
    np.testing.assert_allclose(full[:, :4].std(0), (high - low) / np.sqrt(12), rtol=0.05)
    assert set(full[:, 4]) == {0.0, 1.0}
    assert 0.45 < full[:, 4].mean() < 0.55
    assert full.dtype == np.float32
    assert draw_factors(Photometric.reduced, random).shape == (3,)
    assert draw_factors(Photometric.none, random).shape == (0,)


def test_unknown_factors_are_refused():
    with pytest.raises(ValueError, match="4 columns"):
        to_input(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 4))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", list(Photometric))
def test_cuda_agrees_with_the_cpu(kind):
    images, factors = batch(kind, side=64)
    there = to_input(images.cuda(), factors.cuda()).cpu()
    torch.testing.assert_close(there, to_input(images, factors), atol=1e-5, rtol=0)
