"""A seeded network reproduces stored activations: a refactor that changes them changes the network.

Weights and forward pass are in float64, so that convolution algorithms and processors differ by
its rounding alone: tolerance 1e-6, relative to each row's largest stored value.

After an intended change of the network delete the file: the test writes it anew and fails once.
"""

import json
from pathlib import Path

import pytest
import torch
from evaluation.networks import row_outputs
from network.conftest import RECIPES
from small_runs import in_float64

from bn_inception.network import Inception, NetworkConfig, initialize

STORED = Path(__file__).with_name("reference_activations.json")
NETWORKS = ("inception", "bn_x5", "bn_x5_sigmoid", "per_activation")
TOLERANCE = 1e-6


def activations(name: str) -> dict[str, list[float]]:
    """Per row, in evaluation mode after one training pass: root mean square, mean, and the last
    image's last three activations; the logits."""
    network = Inception(NetworkConfig(width=0.125, image_size=32, **RECIPES[name]), 5)
    initialize(network, torch.Generator().manual_seed(0))  # biases, gammas and betas
    in_float64(network)
    axis = torch.linspace(-1, 1, 32, dtype=torch.float64)
    phase = torch.arange(1, 13, dtype=torch.float64).view(4, 3, 1, 1)
    images = torch.sin(phase * axis.view(-1, 1) * 2) * torch.cos(phase * axis * 3)
    logits, rows = row_outputs(network, images)
    evaluated = network.eval()(images)  # from here on, these are the rows' outputs
    record = {
        row: [maps.square().mean().sqrt().item(), maps.mean().item(), *maps.flatten()[-3:].tolist()]
        for row, maps in rows.items()
    }
    record["main logits"] = logits.main.flatten().tolist()
    record["auxiliary logits"] = logits.auxiliary.flatten().tolist()
    record["evaluation logits"] = evaluated.flatten().tolist()
    return record


@pytest.mark.parametrize("name", NETWORKS)
def test_activations_are_the_stored_ones(name):
    if not STORED.exists():
        STORED.write_text(json.dumps({name: activations(name) for name in NETWORKS}, indent=1))
        pytest.fail(f"{STORED.name} was written anew")
    stored = json.loads(STORED.read_text())[name]
    record = activations(name)
    assert list(record) == list(stored)
    for row, values in stored.items():
        scale = max(abs(value) for value in values)
        assert record[row] == pytest.approx(values, rel=0, abs=TOLERANCE * scale), row
