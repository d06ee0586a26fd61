"""Stored losses: a refactor proves itself by reproducing them, on every processor.

Processors sum in another order, and in float32 so small a network with BN makes per cents of that
within five updates. So five updates are made in float64; and of the whole command, reading and
augmentation included, the first loss is compared. A change that is meant to alter the losses says
so in its commit and writes them anew:

    OMP_NUM_THREADS=1 python tests/training/test_loss_curve.py
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # also when run as a script

from small_runs import TINY, in_float64, write_images

from bn_inception.cli.main import dispatch
from bn_inception.config import compose, run_config
from bn_inception.network import Inception, initialize
from bn_inception.training.learner import build_optimizer
from bn_inception.training.step import train_step

STORED = Path(__file__).with_name("loss_curves.json")
RECIPES = ("inception", "bn_baseline", "bn_x30", "bn_x5_sigmoid")
UPDATES = 5
TOLERANCE = 1e-6
FIRST_TOLERANCE = 1e-3
"""Of the first loss in float32: processors were seen to differ by up to 2e-5."""


def curve(recipe):
    """Main losses of some updates in float64, and the norm of all parameters after each."""
    config = run_config(compose("train", [f"recipe={recipe}", *TINY, "scale.rate_factor=1"]))
    network = Inception(config.network, 4)
    initialize(network, torch.Generator().manual_seed(0))  # biases, gammas and betas
    in_float64(network.train())
    optimizer = build_optimizer(network, config.optimizer)
    found: dict[str, list[float]] = {"losses": [], "norms": []}
    for step in range(UPDATES):
        images, labels = batch(step)
        result = train_step(network, optimizer, images, labels, config.optimizer.learning_rate)
        norm = math.sqrt(sum(float(p.detach().square().sum()) for p in network.parameters()))
        found["losses"].append(float(result.loss))
        found["norms"].append(norm)
    return found


def batch(number):
    """Eight 16x16 images in [-1, 1], two of each of four classes."""
    axis = torch.linspace(-1, 1, 16, dtype=torch.float64)
    phase = torch.arange(1, 25, dtype=torch.float64).view(8, 3, 1, 1) + number
    images = torch.sin(phase * axis.view(-1, 1) * 2) * torch.cos(phase * axis * 3)
    return images, torch.arange(8) % 4


def first_loss(recipe, images, root):
    """The first training loss of the whole command, but for dropout."""
    given = [f"data.root={images}", f"run.root={root}", f"run.name={recipe}", "train.log_every=1"]
    given += ["train.steps=1", "network.dropout=0", "data.backend=pillow"]  # the reference backend
    assert dispatch(["train", f"recipe={recipe}", *TINY, *given]) == 0
    record = json.loads((root / recipe / "metrics.jsonl").read_text().splitlines()[0])
    assert (record["kind"], record["step"]) == ("train", 1)
    return float(record["loss"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_five_updates_in_float64_are_the_stored_ones(recipe):
    stored, found = json.loads(STORED.read_text())[recipe], curve(recipe)
    assert len(set(found["losses"])) == len(set(found["norms"])) == UPDATES
    for key, values in found.items():
        assert values == pytest.approx(stored[key], rel=TOLERANCE), key


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_first_loss_of_the_command_is_the_stored_one(recipe, images, tmp_path):
    stored = json.loads(STORED.read_text())[recipe]["first loss"]
    assert first_loss(recipe, images, tmp_path) == pytest.approx(stored, rel=FIRST_TOLERANCE)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = write_images(root / "images")
        stored = {
            recipe: curve(recipe) | {"first loss": first_loss(recipe, images, root / "outputs")}
            for recipe in RECIPES
        }
    STORED.write_text(json.dumps(stored, indent=1) + "\n")
