"""A recipe's network, in one call."""

import torch

from bn_inception.config.compose import compose, run_config
from bn_inception.network import Inception, initialize
from bn_inception.paper.results import IMAGENET_CLASSES


def build_network(
    recipe: str = "bn_x30",
    num_classes: int = IMAGENET_CLASSES,
    *,
    seed: int = 0,
    **readings: bool | int | float | str,
) -> torch.nn.Module:
    """Build the network of one of the paper's recipes, initialized (BN section 4.2, Figure 5).

    Args:
        recipe: inception, bn_baseline, bn_x5, bn_x30, bn_x5_sigmoid, inception_x5 or
            inception_sigmoid.
        num_classes: outputs of the classifier, at least 2.
        seed: of the initial weights.
        **readings: where the paper can be read in more than one way (docs/fidelity.md) or is
            scaled: `pool_projection=96|128` of 4c and 4d, `first_convolution="separable"|"full"`,
            `auxiliary_head=bool`, `convolution_bias=bool` (in BN networks), `width=float` (channel
            multiplier), `image_size=int` (pixels; 224 keeps every stride of Figure 5), or another
            key of `network.*`.

    Returns:
        A module from images (N, 3, image_size, image_size), RGB scaled to about [-1, 1], to
        logits (N, num_classes). In training mode with the auxiliary head it returns
        `Logits(main, auxiliary)`, both (N, num_classes).
    """
    overrides = [f"network.{name}={value}" for name, value in readings.items()]
    composed = compose("train", [f"recipe={recipe}", "scale=paper", *overrides])
    network = Inception(run_config(composed).network, num_classes)
    initialize(network, torch.Generator().manual_seed(seed))
    return network
