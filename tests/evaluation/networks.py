"""Small networks whose BN has something to say, the files that hold them, and strangers' files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bn_inception import UserError
from bn_inception.data import Backend, preprocessing
from bn_inception.network import Inception, NetworkConfig, checkpoint, initialize


def small_network(classes: int = 3, seed: int = 0, **settings: object) -> Inception:
    """The narrowest network on 16x16 images, in evaluation mode.

    Its biases, running statistics, gammas and betas are not those of a new network, which folding
    and population statistics could confuse without being noticed.
    """
    config = NetworkConfig(**{"width": 0.0625, "image_size": 16, **settings})
    network = Inception(config, classes)
    generator = torch.Generator().manual_seed(seed)
    initialize(network, generator)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.data = 0.3 * torch.randn(module.bias.shape, generator=generator)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            shape = module.weight.shape
            module.weight.data = 0.5 + torch.rand(shape, generator=generator)
            module.bias.data = 0.3 * torch.randn(shape, generator=generator)
            module.running_mean.copy_(0.3 * torch.randn(shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
    return network.to(memory_format=torch.channels_last).eval()


def pictures(count: int = 3) -> Tensor:
    """Inputs of the small network."""
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(9)) * 2 - 1


def row_outputs(network: Inception, images: Tensor) -> tuple[Any, dict[str, Tensor]]:
    """What the network gives, and the output of every row in the order of the calls."""
    found: dict[str, Tensor] = {}
    for name, row in network.named_rows():
        row.register_forward_hook(
            lambda _, __, output, name=name: found.update({name: output.detach()})
        )
    return network(images), found


def state(network: Inception, /, **changes: Any) -> dict[str, Any]:
    """The content of a checkpoint."""
    return {
        "step": 7,
        "network": network.state_dict(),
        "network_config": checkpoint.plain(network.config),
        "classes": [f"c{label}" for label in range(network.num_classes)],
        "recipe": "bn_x5",
        "preprocessing": preprocessing.describe(Backend.pillow),
        **changes,
    }


def write_run(folder: Path, network: Inception, **changes: Any) -> Path:
    """A run folder that holds nothing but `best.pt`."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    checkpoint.save(state(network, **changes), folder / "checkpoints", checkpoint.BEST)
    return folder


def refusal(call: Callable[..., object], *given: Any, **named: Any) -> str:
    """The one line of a UserError that `call` raises."""
    with pytest.raises(UserError) as caught:
        call(*given, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Malicious:
    """Makes a folder `harmed` where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("harmed",)
