"""The memory that a training step needs, computed without running one."""

import torch
from torch import Tensor

from bn_inception.network.inception import Inception


def saved_bytes(network: Inception, images: int) -> int:
    """Bytes of float32 tensors that a forward pass in training keeps for the backward pass.

    For `images` images of the network's training size. Each storage is counted once; parameters
    and buffers are not counted. The forward pass runs on a copy without storage.
    """
    size = network.config.image_size
    with torch.device("meta"):
        batch = torch.empty(images, 3, size, size)
        architecture = Inception(network.config, network.num_classes).train()
    own = {id(tensor) for tensor in (*architecture.parameters(), *architecture.buffers())}
    kept: dict[int, Tensor] = {}  # kept alive, so that no address is reused

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = architecture(batch)
    del output
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
