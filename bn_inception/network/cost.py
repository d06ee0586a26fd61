"""Compute of a forward pass, and the memory of a training step, without making either."""

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
    architecture, images = _shapes(network, 1, image_size)
    architecture.eval()
    total = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += of(layer, output)

    for module in architecture.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(count)
    architecture(images)
    return total


def saved_bytes(network: Inception, images: int) -> int:
    """Bytes of float32 tensors that a forward pass in training keeps for the backward pass.

    For `images` images of the network's own size. Storages are counted once, parameters and
    buffers not at all. Counted on shapes without storage, as above.
    """
    architecture, batch = _shapes(network, images, network.config.image_size)
    own = {id(tensor) for tensor in (*architecture.parameters(), *architecture.buffers())}
    kept: dict[int, Tensor] = {}  # held, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = architecture.train()(batch)
    del output
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _shapes(network: Inception, images: int, image_size: int) -> tuple[Inception, Tensor]:
    """The architecture and a batch for it, of tensors that have shapes and no storage."""
    with torch.device("meta"):
        batch = torch.empty(images, 3, image_size, image_size)
        return Inception(network.config, network.num_classes), batch
