from collections.abc import Callable

import pytest
import torch

from bn_inception.network import Inception, NetworkConfig, Nonlinearity, Normalization, initialize

PLAIN = {"normalization": Normalization.none, "local_response_normalization": True, "dropout": 0.4}
SIGMOID = {"nonlinearity": Nonlinearity.sigmoid}
RECIPES: dict[str, dict[str, object]] = {
    "inception": PLAIN,
    "bn_baseline": {"local_response_normalization": True, "dropout": 0.4},
    "bn_x5": {},
    "bn_x5_sigmoid": SIGMOID,
    "inception_sigmoid": PLAIN | SIGMOID,
    "per_activation": {"per_activation": ["5a", "5b"]},
}
"""Of the recipes, and of the ensemble's members with BN per activation."""


@pytest.fixture(params=sorted(RECIPES))
def recipe(request) -> dict[str, object]:
    """The settings that make a recipe's network."""
    return RECIPES[request.param]


@pytest.fixture
def small() -> Callable[..., Inception]:
    """An initialized network at width 0.25 on 32x32 images, of 5 classes."""

    def network(seed: int = 0, **settings: object) -> Inception:
        config = NetworkConfig(**({"width": 0.25, "image_size": 32} | settings))
        network = Inception(config, 5)
        initialize(network, torch.Generator().manual_seed(seed))
        return network

    return network


@pytest.fixture
def on_meta() -> Callable[..., Inception]:
    """A network with shapes and no storage: it costs no arithmetic."""

    def network(num_classes: int = 1000, **settings: object) -> Inception:
        with torch.device("meta"):
            return Inception(NetworkConfig(**settings), num_classes)

    return network
