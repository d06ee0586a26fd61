"""Small networks whose BN has something to say."""

import torch
from torch import nn

from bn_inception.network import Inception, NetworkConfig, initialize


def small_network(classes: int = 3, seed: int = 0, **settings: object) -> Inception:
    """The narrowest network on 16x16 images, in evaluation mode.

    Its running statistics, gammas and betas are not those of a new network, which folding and
    population statistics could confuse without being noticed.
    """
    config = NetworkConfig(**{"width": 0.0625, "image_size": 16, **settings})
    network = Inception(config, classes)
    generator = torch.Generator().manual_seed(seed)
    initialize(network, generator)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            shape = module.weight.shape
            module.weight.data = 0.5 + torch.rand(shape, generator=generator)
            module.bias.data = 0.3 * torch.randn(shape, generator=generator)
            module.running_mean.copy_(0.3 * torch.randn(shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
    return network.to(memory_format=torch.channels_last).eval()
