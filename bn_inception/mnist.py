"""BN section 4.1 and Figure 1 at their own size: a small sigmoid network on MNIST."""

import gzip
import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchvision.datasets import MNIST

from bn_inception.drawing import COLOURS, drawing, frame, percentile_lines, style, thousands
from bn_inception.errors import UserError
from bn_inception.files import first_line, write_bytes
from bn_inception.network.normalization import BatchNorm, population_statistics
from bn_inception.paper.results import (
    FIGURE_1_PERCENTILES,
    MNIST_HIDDEN_UNITS,
    MNIST_MINI_BATCH,
    MNIST_STEPS,
)

NETWORKS = ("plain", "bn")
"""Without and with BN in the hidden layers: y = g(Wu + b) and y = g(BN(Wu))."""
COUNTS = {"train": 60_000, "t10k": 10_000}
VALIDATION = 10_000
"""The last of the 60,000 training images. They choose the rates; the test images choose nothing."""
THRESHOLD = 128
"""Grey levels from here on are 1. Section 4.1 says "binary image" and gives no threshold."""
PIXELS, CLASSES = 28 * 28, 10
UNIT = 0
"""Figure 1 shows "one typical sigmoid". The first is shown here, whatever it looks like."""


class Digits(NamedTuple):
    """Images (N, 784) of zeros and ones, float32, and their labels (N,) int64."""

    images: Tensor
    labels: Tensor


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
    """A training's evaluations, from step 0 on; `network` is one of `NETWORKS`."""

    network: str
    settings: MnistSettings
    evaluations: tuple[Evaluation, ...]


def read_digits(root: Path) -> tuple[Digits, Digits, Digits]:
    """The 50,000 training, 10,000 validation and 10,000 test images of MNIST.

    `root` holds MNIST's four .gz files, or `MNIST/raw`, to which torchvision downloads them.
    """
    kinds = ("images-idx3", "labels-idx1")
    names = [f"{part}-{kind}-ubyte.gz" for kind in kinds for part in COUNTS]
    try:
        folder = root
        if not all((root / name).is_file() for name in names):
            MNIST(root, download=True)
            folder = root / "MNIST" / "raw"
        contents = [gzip.decompress((folder / name).read_bytes()) for name in names]
        training, test = map(_digits, contents[:2], contents[2:], COUNTS.values())
    except (OSError, RuntimeError, ValueError, EOFError, zlib.error) as error:
        raise UserError(
            f"root: MNIST cannot be read from {root} or downloaded there ({first_line(error)}); "
            f"give root=FOLDER that holds {', '.join(names)}"
        ) from error
    held_out = slice(-VALIDATION, None), slice(None, -VALIDATION)
    validation, training = (Digits(*(part[place] for part in training)) for place in held_out)
    return training, validation, test


def _digits(images: bytes, labels: bytes, count: int) -> Digits:
    """From the contents of two IDX files, whose headers have 16 and 8 bytes."""
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(count, PIXELS)
    numbers = np.frombuffer(labels, np.uint8, offset=8).reshape(count)
    binary = torch.from_numpy(pixels >= THRESHOLD).to(torch.float32)
    return Digits(binary, torch.from_numpy(numbers.astype(np.int64)))


def sigmoid_network(name: str, deviation: float, generator: torch.Generator) -> nn.Sequential:
    """One of `NETWORKS`: images (N, 784) to logits (N, 10); the output layer has no BN.

    Every weight is drawn from a Gaussian of standard deviation `deviation`, the same for both
    networks. Biases and beta start at 0, gamma at 1.
    """
    layers: list[nn.Module] = []
    for inputs, units in itertools.pairwise((PIXELS, *MNIST_HIDDEN_UNITS)):
        if name == "bn":
            layers += [nn.Linear(inputs, units, bias=False), BatchNorm(units)]
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
    name: str,
    settings: MnistSettings,
    digits: tuple[Digits, Digits, Digits],
    progress: Callable[[Evaluation], object] = lambda evaluation: None,
) -> Curve:
    """Train one of `NETWORKS` on the first of `digits`; evaluate it on the others.

    The weights and the order of the images are functions of the seed, the same for both networks.
    """
    training, validation, test = digits
    generator = torch.Generator().manual_seed(settings.seed)
    network = sigmoid_network(name, settings.deviation, generator)
    optimizer = torch.optim.SGD(network.parameters(), lr=settings.learning_rate)
    # The first mini-batches of the seed's order, at every evaluation the same.
    first = itertools.islice(_batches(training, settings.seed), settings.population_batches)
    population = [images for images, _ in first]
    evaluations = []
    for step, (images, labels) in enumerate(_batches(training, settings.seed)):
        if step % settings.evaluate_every == 0 or step == settings.steps:
            evaluations.append(_evaluate(network, population, step, validation, test))
            progress(evaluations[-1])
        if step == settings.steps:
            break
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return Curve(name, settings, tuple(evaluations))


def _batches(digits: Digits, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Mini-batches for ever: a new permutation each epoch, whose incomplete last batch is left."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(digits.labels), generator=generator)
        for chosen in torch.split(order, MNIST_MINI_BATCH):
            if len(chosen) == MNIST_MINI_BATCH:
                yield digits.images[chosen], digits.labels[chosen]


@torch.no_grad()
def _evaluate(
    network: nn.Sequential, population: list[Tensor], step: int, validation: Digits, test: Digits
) -> Evaluation:
    judged = population_statistics(network, population)
    assert judged is not None
    inputs = judged[:-2](test.images)[:, UNIT]  # of the last hidden layer's sigmoids
    ranks = torch.tensor([percentile / 100 for percentile in FIGURE_1_PERCENTILES])
    test_accuracy, validation_accuracy = (
        (judged(digits.images).argmax(1) == digits.labels).double().mean().item()
        for digits in (test, validation)
    )
    percentiles = tuple(torch.quantile(inputs, ranks).tolist())
    return Evaluation(step, test_accuracy, validation_accuracy, percentiles)


def figure1(curves: Sequence[Curve], folder: Path) -> list[Path]:
    """Draw `figure1.png` and `figure1.svg` into `folder`; the same curves give the same bytes.

    `curves` are of both networks, evaluated at the same steps. Panel (a) has the mean over the
    seeds and the band from the lowest to the highest; (b) and (c) show the first seed.
    """
    with style():
        figure = Figure(figsize=(10.0, 3.6), layout="constrained")
        accuracy, *moves = figure.subplots(1, 3)
        names = ("Without BN", "With BN")
        panels = zip(moves, "bc", NETWORKS, names, COLOURS, strict=False)
        for axes, letter, network, name, colour in panels:
            runs = [curve.evaluations for curve in curves if curve.network == network]
            steps = [evaluation.step for evaluation in runs[0]]
            found = np.array([[evaluation.test_accuracy for evaluation in run] for run in runs])
            accuracy.plot(steps, found.mean(0), color=colour, label=name)
            accuracy.fill_between(steps, found.min(0), found.max(0), color=colour, alpha=0.2, lw=0)
            inputs = np.array([evaluation.percentiles for evaluation in runs[0]])
            percentile_lines(axes, steps, inputs, colour)
            axes.set_title(f"({letter}) {name}")
            axes.set_ylabel("input to a sigmoid")
        accuracy.set_ylim(0.7, 1)  # as Figure 1(a)
        accuracy.set_title("(a) test accuracy")
        accuracy.legend(loc="lower right", frameon=False)
        moves[1].sharey(moves[0])
        for axes in (accuracy, *moves):
            axes.set_xlabel("training steps")
            axes.set_xlim(left=0)
            thousands(axes)
            axes.tick_params(axis="x", labelsize=8)
            frame(axes)
    files = drawing("figure1", "Figure 1", figure).files
    for file, content in files.items():
        write_bytes(folder / file, content)
    return [folder / file for file in files]
