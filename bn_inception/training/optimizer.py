"""Stochastic gradient descent as the paper's recipes set it."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from bn_inception.errors import UserError

Duration = int | float | str
"""A number of steps, or a text such as "8 epochs": see `schedule.steps`."""


def require_positive(key: str, value: float, remedy: str = "") -> None:
    """Refuse a setting that is not a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{key}: {value} is not positive{remedy and '; '}{remedy}")


@dataclass
class OptimizerConfig:
    """SGD with momentum and a staircase decay (GN section 6; BN sections 4.2 and 4.2.1).

    Attributes:
        learning_rate: initial rate.
        momentum: 0.9 in GN and in every public port; neither Nesterov nor gradient clipping.
        weight_decay: L2 on the weights of convolutions and linear layers only.
        decay_factor: what the rate is multiplied by, 0.96 in GN.
        decay_every: how often (a duration).
        warmup: a duration over which the rate rises linearly from nothing; None starts at the full
            rate, as the paper. For large batches (Goyal et al. 2017, arXiv 1706.02677).
    """

    learning_rate: float
    momentum: float
    weight_decay: float
    decay_factor: float
    decay_every: Duration
    warmup: Duration | None = None

    def __post_init__(self) -> None:
        rates = "the paper's rates are 0.0015, 0.0075 and 0.045"
        require_positive("optimizer.learning_rate", self.learning_rate, rates)
        for key, allowed, limits in (
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
            ("decay_factor", 0 < self.decay_factor <= 1, "in (0, 1]; 1 keeps the rate constant"),
        ):
            if not allowed:
                raise UserError(f"optimizer.{key}: {getattr(self, key)} is not {limits}")


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.SGD:
    """SGD in two groups: weight decay on weights of convolutions and linear layers, none on others.

    The type of the module that owns a parameter decides, never its name. One kernel updates all
    parameters, and honours `found_inf` (see step.py).
    """
    decayed = [
        module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    chosen = {id(parameter) for parameter in decayed}
    others = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
    optimizer = torch.optim.SGD(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        momentum=config.momentum,
        fused=True,
    )
    start_momenta(optimizer)
    return optimizer


def start_momenta(optimizer: torch.optim.SGD) -> None:
    """Give every parameter a momentum that lies in memory as it does: its own, or zero.

    Torch would make it in the first update; but where the fused kernel skips that one, because the
    loss is not finite, the memory stays as it was found, and the second update adds it. And that
    kernel walks through memory: a momentum saved in another memory format would be added to other
    weights.
    """
    for group in optimizer.param_groups:
        if group["momentum"]:
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                own = torch.zeros_like(parameter)
                if state.get("momentum_buffer") is not None:
                    own.copy_(state["momentum_buffer"])
                state["momentum_buffer"] = own
