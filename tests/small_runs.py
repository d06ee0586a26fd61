"""Runs of a few seconds: a small learnable image set, the overrides of short runs, weights."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

# A run of a few seconds: 16x16 images, the narrowest network, batches of 8.
TINY = (
    "scale=demo",
    "scale.image_size=16",
    "scale.width=0.0625",
    "batch.images=8",
    "train.steps=12",
    "train.evaluate_every=4",
    "train.checkpoint_every=3",
    "train.log_every=2",
    "train.population_batches=3",
    "data=folder",
    "data.workers=0",
    "machine.device=cpu",
    "machine.threads=1",
)


def write_images(root: Path, *, classes: int = 3, train: int = 14, val: int = 5) -> Path:
    """A small, learnable set in ImageNet's layout: each class has a colour of its own, plus noise.

    The number of held-out images is no multiple of an evaluation batch, and no image is square.
    """
    generator = np.random.default_rng(7)
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            folder = root / split / f"n{label:04d}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 120, (20, 26, 3))
                pixels[..., label % 3] += 110
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(folder / f"{index}.JPEG", quality=90)
    return root


def in_float64(network: nn.Module) -> nn.Module:
    """`network` in float64 with He weights of numpy's, for comparisons with stored numbers.

    Processors differ in the last bits of torch's normal numbers, and in the masks of its dropout,
    which is off: torch has Intel's generator draw them on Intel.
    """
    generator = np.random.default_rng(0)
    network.double()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            std = math.sqrt(2 / module.weight[0].numel())
            drawn = generator.standard_normal(tuple(module.weight.shape))
            module.weight.data.copy_(std * torch.from_numpy(drawn))
        if isinstance(module, nn.Dropout):
            module.eval()
    return network
