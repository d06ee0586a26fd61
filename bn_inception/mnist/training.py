"""50,000 steps of section 4.1, and what Figure 1 shows of them."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bn_inception.mnist.images import Digits
from bn_inception.mnist.network import Normalization, logits_and_last_inputs, sigmoid_network
from bn_inception.network.normalization import BatchNorm1d
from bn_inception.paper.results import FIGURE_1_PERCENTILES, MNIST_MINI_BATCH, MNIST_STEPS

UNIT = 0
"""Figure 1 shows "one typical sigmoid". The first is shown here, whatever it looks like."""


@dataclass(frozen=True)
class MnistSettings:
    """One training: plain SGD at a constant rate; section 4.1 names no other.

    Attributes:
        learning_rate, deviation: of the choices in docs/mnist.md; the paper gives neither.
        steps, batch: section 4.1.
        evaluate_every: steps.
        population_batches: mini-batches of BN's Algorithm 2 at an evaluation.
    """

    learning_rate: float
    deviation: float
    seed: int = 0
    steps: int = MNIST_STEPS
    batch: int = MNIST_MINI_BATCH
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

    def plateau(self) -> float:
        """Mean validation accuracy of the last tenth of the evaluations: what choices rest on."""
        last = self.evaluations[-max(1, len(self.evaluations) // 10) :]
        return sum(evaluation.validation_accuracy for evaluation in last) / len(last)


def train(
    normalization: Normalization,
    settings: MnistSettings,
    digits: tuple[Digits, Digits, Digits],
    progress: Callable[[Evaluation], object] = lambda evaluation: None,
) -> Curve:
    """Train one network on the first of `digits`; evaluate it on the others.

    The weights and the order of the images are functions of the seed, the same for both networks.

    Args:
        normalization: plain, or with BN.
        settings: of the training.
        digits: training, validation and test images.
        progress: told of every evaluation.
    """
    training, validation, test = digits
    generator = torch.Generator().manual_seed(settings.seed)
    network = sigmoid_network(normalization, settings.deviation, generator)
    optimizer = torch.optim.SGD(network.parameters(), lr=settings.learning_rate)
    # The first mini-batches of the seed's order, at every evaluation the same.
    first = _batches(training, settings.batch, settings.seed)
    population = [next(first)[0] for _ in range(settings.population_batches)]
    evaluations = []
    for step, (images, labels) in enumerate(_batches(training, settings.batch, settings.seed)):
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
    logits, inputs = logits_and_last_inputs(judged, test.images)
    ranks = torch.tensor([percentile / 100 for percentile in FIGURE_1_PERCENTILES])
    return Evaluation(
        step,
        _accuracy(logits, test),
        _accuracy(judged(validation.images), validation),
        tuple(torch.quantile(inputs[:, UNIT], ranks).tolist()),
    )


def _accuracy(logits: Tensor, digits: Digits) -> float:
    return (logits.argmax(1) == digits.labels).double().mean().item()
