"""Compute and memory of a forward pass."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bn_inception.network.inception import Inception


def multiply_adds(network: Inception, image_size: int) -> int:
    """Multiply-adds of one image's inference at `image_size`: convolutions and linear layers.

    1.935e9 for the default network at 224.
    """

    def of(layer: nn.Module, output: Tensor) -> int:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        return output.numel() * layer.weight[0].numel()

    return _counted(network, image_size, (nn.Conv2d, nn.Linear), of)


def feature_values(network: Inception, image_size: int) -> int:
    """Values that the convolutions put out for one image at `image_size`, at inference."""
    return _counted(network, image_size, (nn.Conv2d,), lambda layer, output: output.numel())


def _counted(
    network: Inception,
    image_size: int,
    kinds: tuple[type[nn.Module], ...],
    of: Callable[[nn.Module, Tensor], int],
) -> int:
    """Sum `of` (layer, its output) over the layers of some kinds.

    Counted by forward hooks on a copy of the architecture whose tensors have shapes and no storage,
    so that it costs no arithmetic.
    """
    with torch.device("meta"):
        architecture = Inception(network.config, network.num_classes).eval()
        images = torch.empty(1, 3, image_size, image_size)
    total = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += of(layer, output)

    for module in architecture.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(count)
    architecture(images)
    return total
