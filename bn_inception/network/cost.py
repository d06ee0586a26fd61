"""Compute of a forward pass."""

import torch
from torch import Tensor, nn

from bn_inception.network.inception import Inception


def multiply_adds(network: Inception, image_size: int) -> int:
    """Multiply-adds of one image's inference at `image_size`: convolutions and linear layers.

    1.935e9 for the default network at 224. Counted by forward hooks on a copy of the architecture
    whose tensors have shapes and no storage, so that it costs no arithmetic.
    """
    with torch.device("meta"):
        architecture = Inception(network.config, network.num_classes).eval()
        images = torch.empty(1, 3, image_size, image_size)
    total = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        total += output.numel() * layer.weight[0].numel()

    for module in architecture.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    architecture(images)
    return total
