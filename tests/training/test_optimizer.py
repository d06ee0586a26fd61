import pytest
import torch
from torch import nn

import bn_inception
from bn_inception import UserError
from bn_inception.training.optimizer import OptimizerConfig, build_optimizer, learning_rate

PLAIN = OptimizerConfig(0.0015, 0.9, 2e-4, 0.96, 320_292)
RECIPES = ["inception", "bn_baseline", "bn_x5", "bn_x30", "bn_x5_sigmoid"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_only_weights_of_convolutions_and_linear_layers_decay(recipe: str) -> None:
    network = bn_inception.build_network(recipe, num_classes=10, width=0.125, image_size=32)
    decayed, rest = build_optimizer(network, PLAIN).param_groups
    assert (decayed["weight_decay"], rest["weight_decay"]) == (2e-4, 0.0)
    ids = {id(parameter) for parameter in decayed["params"]}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            expected = isinstance(module, nn.Conv2d | nn.Linear) and name == "weight"
            assert (id(parameter) in ids) == expected
    count = len(decayed["params"]) + len(rest["params"])
    assert count == len(list(network.parameters()))


def test_the_rate_is_a_staircase() -> None:
    config = OptimizerConfig(0.0075, 0.9, 4e-5, 0.96, 53.382)
    assert learning_rate(config, 0, 53.382) == 0.0075
    assert learning_rate(config, 53, 53.382) == 0.0075
    assert learning_rate(config, 54, 53.382) == 0.0075 * 0.96
    # The interval is not rounded: the hundredth stair begins at step 5338.2, not at 5300.
    assert learning_rate(config, 5338, 53.382) == pytest.approx(0.0075 * 0.96**99)
    assert learning_rate(config, 5339, 53.382) == pytest.approx(0.0075 * 0.96**100)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"learning_rate": 0.0}, "optimizer.learning_rate"),
        ({"learning_rate": float("nan")}, "optimizer.learning_rate"),
        ({"momentum": 1.0}, "optimizer.momentum"),
        ({"weight_decay": -1e-4}, "optimizer.weight_decay"),
        ({"decay_factor": 0.0}, "optimizer.decay_factor"),
    ],
)
def test_impossible_settings_are_named(change: dict[str, float], key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}: "):
        OptimizerConfig(**{**vars(PLAIN), **change})


def test_sgd_with_momentum_follows_the_closed_form() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    optimizer = build_optimizer(layer, OptimizerConfig(0.1, 0.9, 0.5, 1.0, 1))
    weight, velocity = 1.0, 0.0
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.tensor([[2.0]])).sum().backward()  # gradient 2
        optimizer.step()
        velocity = 0.9 * velocity + 2.0 + 0.5 * weight
        weight -= 0.1 * velocity
        assert layer.weight.item() == pytest.approx(weight, rel=1e-6)
