"""How the inputs of nonlinearities move while a network trains: BN Figure 1(b, c) for any layer.

Forward hooks that only read: a run computes the same bits with them and without.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bn_inception.errors import UserError, close_matches, require_at_least
from bn_inception.network.inception import AuxiliaryHead, HiddenConvolution, Inception
from bn_inception.paper.results import FIGURE_1_PERCENTILES, MINI_BATCH
from bn_inception.record.metrics import ProbeRecord

CHANNEL = 0
"""Figure 1 shows "one typical sigmoid". The first channel is taken, whatever it looks like: chosen
before any run, and of the same initial weights in all recipes. A sample is (image, y, x)."""
SATURATED = 3.64
"""Farther from 0 the slope of a sigmoid is under a tenth of what it is at 0."""


@dataclass
class ProbeConfig:
    """Which layers are looked into (rows of Figure 5, or layers of one), and how often.

    The first update is looked into, and then one in `every`.
    """

    layers: list[str] = field(default_factory=list)
    every: int = 100

    def __post_init__(self) -> None:
        require_at_least("probe.every", self.every, 1, "; give updates")


class Layer(NamedTuple):
    """A weight, and the nonlinearity that what it makes goes into, normalized or not."""

    weight: Tensor
    nonlinearity: nn.Module


class Probe:
    """Looks into some layers of a network, in some of its updates.

    `batch` is the images of an update, over all processes. A `silent` probe looks nowhere: for
    every process but the first. `records` are those of the last update.
    """

    def __init__(
        self, config: ProbeConfig, network: Inception, batch: int, *, compiled: bool, silent: bool
    ) -> None:
        if config.layers and compiled:
            raise UserError(
                f"probe.layers: {', '.join(config.layers)}, but compiled updates cannot be looked "
                "into; choose machine.compile=false, or probe.layers=[]"
            )
        chosen = _chosen(config.layers, network)
        self._layers = {} if silent else chosen
        self._every, self._batch = config.every, batch
        self.records: list[ProbeRecord] = []

    @contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Around update number `step` (from 1): look into it if that is due."""
        self.records = []
        if not self._layers or (step != 1 and step % self._every):
            yield
            return
        seen: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for name, layer in self._layers.items():

                def look(_: nn.Module, inputs: Any, name: str = name, layer: Layer = layer) -> None:
                    seen[name] = _measured(inputs[0], layer)

                hooks.callback(layer.nonlinearity.register_forward_pre_hook(look).remove)
            yield
        self.records = [
            self._record(step, name, seen[name], layer) for name, layer in self._layers.items()
        ]

    def _record(self, step: int, name: str, measured: Tensor, layer: Layer) -> ProbeRecord:
        *statistics, saturated, weight = measured.tolist()
        gradient = 0.0 if layer.weight.grad is None else float(layer.weight.grad.norm())
        values = [
            *statistics,
            saturated if isinstance(layer.nonlinearity, nn.Sigmoid) else None,
            gradient / weight if weight else None,
        ]
        return ProbeRecord(step, step * self._batch / MINI_BATCH, name, *values)


def _chosen(given: list[str], network: Inception) -> dict[str, Layer]:
    """The layers named, and those of the rows named, in forward order.

    Names are those of `named_modules()`, with or without the `rows.` that all rows begin with.
    """
    known = {}
    for row_name, row in network.named_rows():
        for name, module in row.named_modules(prefix=row_name):
            if isinstance(module, HiddenConvolution):
                known[name] = Layer(module.convolution.weight, module.nonlinearity)
            elif isinstance(module, AuxiliaryHead):
                known[f"{name}.hidden"] = Layer(module.hidden.weight, module.nonlinearity)
    chosen = set()
    for name in (name.removeprefix("rows.") for name in given):
        found = {layer for layer in known if layer == name or layer.startswith(f"{name}.")}
        if not found:
            rows = list(dict.fromkeys(layer.partition(".")[0] for layer in known))
            raise UserError(
                f"probe.layers: {name}: no layer with a nonlinearity has this name; choose from "
                f"{', '.join(rows)}, or a layer of a row{close_matches(name, [*known, *rows])}"
            )
        chosen |= found
    return {name: layer for name, layer in known.items() if name in chosen}


@torch.no_grad()
def _measured(inputs: Tensor, layer: Layer) -> Tensor:
    """Of inputs (N, C, ...), on their device: what a ProbeRecord has, and the weight's norm.

    Before the update, and before a nonlinearity that works in place.
    """
    values = inputs.detach().float()
    saturated = (values.abs() > SATURATED).float().mean()
    others = torch.stack([saturated, layer.weight.norm().float()])
    return torch.cat([_statistics(values[:, CHANNEL]), _statistics(values), others])


def _statistics(values: Tensor) -> Tensor:
    """The percentiles (the nearest value), mean and standard deviation of all values."""
    # torch.quantile takes 16 million values at most; conv1 has 26 million at 224 pixels.
    ordered = values.flatten().sort().values
    places = [round(percentile / 100 * (len(ordered) - 1)) for percentile in FIGURE_1_PERCENTILES]
    return torch.stack([*ordered[places], values.mean(), values.std(correction=0)])
