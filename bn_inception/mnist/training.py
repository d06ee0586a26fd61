"""The network of section 4.1, its 50,000 steps, and what Figure 1 shows of them."""

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bn_inception.mnist.images import Digits
from bn_inception.network.normalization import BatchNorm1d
from bn_inception.paper.results import (
    FIGURE_1_PERCENTILES,
    MNIST_HIDDEN_UNITS,
    MNIST_MINI_BATCH,
    MNIST_STEPS,
)

PIXELS, CLASSES = 28 * 28, 10
UNIT = 0
"""Figure 1 shows "one typical sigmoid". The first is shown here, whatever it looks like."""


class Normalization(Enum):
    """Whether the hidden layers have BN: y = g(BN(Wu)) instead of y = g(Wu + b)."""

    plain = "plain"
    bn = "bn"


NETWORKS = tuple(Normalization)


@dataclass(frozen=True)
class MnistSettings:
    """One training: plain SGD at a constant rate; section 4.1 names no other.

    The paper gives neither the rate nor the weights' standard deviation: see docs/mnist.md.
    `population_batches` are the mini-batches of BN's Algorithm 2 at an evaluation.
    """

    learning_rate: float
    deviation: float
    seed: int = 0
    steps: int = MNIST_STEPS
    evaluate_every: int = 500
    population_batches: int = 100


@dataclass(frozen=True)
class Evaluation:
    """After `step` updates: accuracies are fractions.

    `percentiles` (15th, 50th, 85th) are of the input to one sigmoid of the last hidden layer, over
    the test images; NaN inputs give NaN.
    """

    step: int
    test_accuracy: float
    validation_accuracy: float
    percentiles: tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """A training's evaluations, from step 0 on."""

    network: Normalization
    settings: MnistSettings
    evaluations: tuple[Evaluation, ...]


def sigmoid_network(
    normalization: Normalization, deviation: float, generator: torch.Generator
) -> nn.Sequential:
    """Images (N, 784) to logits (N, 10); the output layer has no BN.

    Every weight is drawn from a Gaussian of standard deviation `deviation`, the same for both
    networks. Biases and beta start at 0, gamma at 1.
    """
    layers: list[nn.Module] = []
    for inputs, units in itertools.pairwise((PIXELS, *MNIST_HIDDEN_UNITS)):
        if normalization is Normalization.bn:
            layers += [nn.Linear(inputs, units, bias=False), BatchNorm1d(units)]
        else:
            layers += [nn.Linear(inputs, units)]
        layers.append(nn.Sigmoid())
    network = nn.Sequential(*layers, nn.Linear(MNIST_HIDDEN_UNITS[-1], CLASSES))
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=deviation, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def train(
    normalization: Normalization,
    settings: MnistSettings,
    digits: tuple[Digits, Digits, Digits],
    progress: Callable[[Evaluation], object] = lambda evaluation: None,
) -> Curve:
    """Train one network on the first of `digits`; evaluate it on the others.

    The weights and the order of the images are functions of the seed, the same for both networks.
    """
    training, validation, test = digits
    generator = torch.Generator().manual_seed(settings.seed)
    network = sigmoid_network(normalization, settings.deviation, generator)
    optimizer = torch.optim.SGD(network.parameters(), lr=settings.learning_rate)
    # The first mini-batches of the seed's order, at every evaluation the same.
    first = _batches(training, MNIST_MINI_BATCH, settings.seed)
    population = [next(first)[0] for _ in range(settings.population_batches)]
    evaluations = []
    for step, (images, labels) in enumerate(_batches(training, MNIST_MINI_BATCH, settings.seed)):
        if step % settings.evaluate_every == 0 or step == settings.steps:
            evaluations.append(_evaluate(network, population, step, validation, test))
            progress(evaluations[-1])
        if step == settings.steps:
            break
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return Curve(normalization, settings, tuple(evaluations))


def _batches(digits: Digits, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Mini-batches for ever: a new permutation each epoch, whose incomplete last batch is left."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(digits.labels), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            yield digits.images[chosen], digits.labels[chosen]


@torch.no_grad()
def _evaluate(
    network: nn.Sequential, population: list[Tensor], step: int, validation: Digits, test: Digits
) -> Evaluation:
    judged = copy.deepcopy(network)
    for layer in judged:
        if isinstance(layer, BatchNorm1d):
            # Without a momentum torch averages the mini-batches' means and unbiased variances:
            # Algorithm 2.
            layer.momentum = None
            layer.reset_running_stats()
    for images in population:
        judged(images)
    judged.eval()
    inputs = judged[:-2](test.images)[:, UNIT]  # of the last hidden layer's sigmoids
    ranks = torch.tensor([percentile / 100 for percentile in FIGURE_1_PERCENTILES])
    test_accuracy, validation_accuracy = (
        (judged(digits.images).argmax(1) == digits.labels).double().mean().item()
        for digits in (test, validation)
    )
    percentiles = tuple(torch.quantile(inputs, ranks).tolist())
    return Evaluation(step, test_accuracy, validation_accuracy, percentiles)
