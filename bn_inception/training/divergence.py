"""Where a diverged network first left the finite numbers."""

import copy

import torch
from torch import Tensor, nn

LOSS = "loss"
"""Named where every layer's output is still finite."""


class Diverged(Exception):
    """The loss or a parameter is no longer finite: a result, not an error (BN section 4.2.2).

    Attributes:
        step: the update, counted from 1, whose loss was not finite.
        layer: the first layer, in forward order, that produced a non-finite output or holds a
            non-finite parameter; "loss" where every layer's output is still finite.
    """

    def __init__(self, step: int, layer: str) -> None:
        super().__init__(f"diverged at step {step} in layer {layer}")
        self.step = step
        self.layer = layer


def require_finite(network: nn.Module, step: int) -> None:
    """Check every parameter (one synchronization).

    Raises:
        Diverged: one is not finite; its module is named.
    """
    parameters = dict(network.named_parameters())
    finite = torch.stack([torch.isfinite(value).all() for value in parameters.values()])
    if not bool(finite.all()):
        name = list(parameters)[int(finite.int().argmin())]
        raise Diverged(step, name.rpartition(".")[0])


def first_nonfinite_layer(network: nn.Module, images: Tensor) -> str:
    """Name the first layer, in the order of a training forward pass, that is not finite.

    Args:
        network: left as it is; a copy runs.
        images: (N, 3, S, S), the mini-batch at hand.
    """
    probe = copy.deepcopy(network).train()
    found: list[str] = []

    def watch(name: str, module: nn.Module) -> None:
        def check(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            tensors = [output, *module.parameters(recurse=False)]
            if not found and not all(bool(torch.isfinite(t).all()) for t in tensors):
                found.append(name)

        module.register_forward_hook(check)

    for name, module in probe.named_modules():
        if not any(True for _ in module.children()):
            watch(name, module)
    with torch.no_grad():
        probe(images)
    return found[0] if found else LOSS
