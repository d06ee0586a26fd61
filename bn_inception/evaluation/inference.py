"""From a trained network to the one that is evaluated: its statistics, and its BN folded."""

from contextlib import closing
from enum import Enum

import torch
from torch import nn

from bn_inception.data import ImageSource, OnError, to_input, validation_batches
from bn_inception.network import Inception, Normalization
from bn_inception.network.folding import fold, largest_difference

CHECKED_IMAGES = 4
"""Held-out images on which the folded network is compared with the original."""
FOLDING_TOLERANCE = 1e-3
"""Of the largest logit. Rounding in float32 leaves about 1e-5 over this network's depth."""


class Statistics(Enum):
    """Which means and variances BN normalizes with at inference.

    `running`: the moving averages that training kept; they lag behind its weights.
    `population`: BN Algorithm 2, see `network.population`; what a run is judged by.
    `both`: an evaluation with each.
    """

    running = "running"
    population = "population"
    both = "both"


def fold_checked(
    network: Inception, source: ImageSource, device: torch.device
) -> tuple[nn.Module, float | None]:
    """Fold BN into the convolutions and compare logits on the first readable held-out images.

    `network` lies on `device` in evaluation mode, and is left as it is. Returns the folded network,
    or `network` where folding changed its outputs, and their largest difference; None where there
    is no BN or no image to compare.
    """
    folded = fold(network)
    if network.config.normalization is Normalization.none:
        return folded, None
    batches = validation_batches(
        source,
        image_size=network.config.image_size,
        batch=2 * CHECKED_IMAGES,
        workers=0,
        on_error=OnError.skip,
    )
    with closing(batches):
        batch = next(batches)
    crops = batch.images[batch.readable][:CHECKED_IMAGES]
    if not len(crops):
        return network, None
    images = to_input(crops.to(device)).contiguous(memory_format=torch.channels_last)
    difference = largest_difference(network, folded, images)
    with torch.inference_mode():
        largest = float(network(images).abs().max())
    accepted = difference <= FOLDING_TOLERANCE * max(1.0, largest)
    return folded if accepted else network, difference
