"""Where a diverged network first left the finite numbers."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from bn_inception.record.summary import Divergence

LOSS = "loss"
"""Named where every layer's output is still finite."""


class Diverged(Exception):
    """The loss or a parameter is no longer finite: a result, not an error (BN section 4.2.2).

    `where` has the update, counted from 1, and the first layer, in forward order, that produced a
    non-finite output or holds a non-finite parameter, or `LOSS`.
    """

    def __init__(self, step: int, layer: str) -> None:
        self.where = Divergence(step, layer)
        super().__init__(self.where)


def require_finite(network: nn.Module, step: int) -> None:
    """Raise `Diverged` where a parameter is not finite (one synchronization)."""
    parameters = dict(network.named_parameters())
    finite = torch.stack([torch.isfinite(value).all() for value in parameters.values()])
    if not bool(finite.all()):
        name = list(parameters)[int(finite.int().argmin())]
        raise Diverged(step, name.rpartition(".")[0])


def first_nonfinite_layer(network: nn.Module, images: Tensor) -> str:
    """Name the first layer, in the order of a training forward pass, that is not finite.

    A copy of `network` runs on the mini-batch at hand, (N, 3, S, S).
    """
    probe = copy.deepcopy(network).train()
    names = {module: name for name, module in probe.named_modules()}
    found: list[str] = []

    def check(module: nn.Module, inputs: Any, output: Tensor) -> None:
        tensors = [output, *module.parameters(recurse=False)]
        if not found and not all(bool(torch.isfinite(t).all()) for t in tensors):
            found.append(names[module])

    for module in names:
        if not list(module.children()):
            module.register_forward_hook(check)
    with torch.no_grad():
        probe(images)
    return found[0] if found else LOSS
