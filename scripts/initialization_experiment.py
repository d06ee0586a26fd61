"""How should the plain network start? The experiment behind NetworkConfig.initialization's default.

BN does not give its initialization, and plain Inception is what fails for most who try: its loss
stays at ln(classes). Two parts, each for one candidate, each printing JSON lines:

    python scripts/initialization_experiment.py train he --data TINY_IMAGENET --image-size 64 \
        --width 1 --classes 20 --steps 400
    python scripts/initialization_experiment.py signal he --photographs PHOTOGRAPHS.zip --steps 40

`train` trains plain Inception by the paper's recipe (rate 0.0015, momentum 0.9, L2 2e-4, batch 32,
dropout 0.4, LRN, auxiliary head) on the first classes of a folder train/<wnid>/*.JPEG of 64x64
images, and prints the main head's training loss, averaged over the last 100 steps, beside
ln(classes).

`signal` builds the network at 224x224, full width, 1000 classes, and prints for each row the root
mean square of its output, how much of it differs between photographs, and the gradient of its
weights; then memorizes one mini-batch of 32 photographs, and prints the loss. A photograph's class
is its number.
"""

import argparse
import io
import json
import math
import time
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from bn_inception.network import (
    AUXILIARY_LOSS_WEIGHT,
    Inception,
    Initialization,
    Logits,
    NetworkConfig,
    Normalization,
    initialize,
)

BATCH = 32
AVERAGED_STEPS = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["train", "signal"])
    parser.add_argument("initialization", choices=[rule.value for rule in Initialization])
    parser.add_argument("--data", type=Path, help="train: folder with train/<wnid>/*.JPEG")
    parser.add_argument("--photographs", type=Path, help="signal: zip of JPEGs")
    parser.add_argument("--image-size", type=int, default=64, help="train: 64 or less")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--classes", type=int, default=20, help="train: the first so many")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--learning-rate", type=float, default=0.0015)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)  # dropout
    if arguments.part == "train":
        train(arguments)
    else:
        signal(arguments)


def plain_network(
    arguments: argparse.Namespace, image_size: int, classes: int, dropout: float
) -> Inception:
    config = NetworkConfig(
        normalization=Normalization.none,
        dropout=dropout,
        local_response_normalization=True,
        width=arguments.width,
        image_size=image_size,
        initialization=Initialization(arguments.initialization),
    )
    network = Inception(config, classes)
    initialize(network, torch.Generator().manual_seed(arguments.seed))
    return network.to(memory_format=torch.channels_last)


def paper_optimizer(network: nn.Module, learning_rate: float) -> torch.optim.SGD:
    weights = [p for p in network.parameters() if p.dim() > 1]
    biases = [p for p in network.parameters() if p.dim() == 1]
    return torch.optim.SGD(
        [{"params": weights, "weight_decay": 2e-4}, {"params": biases, "weight_decay": 0.0}],
        lr=learning_rate,
        momentum=0.9,
    )


def train_step(
    network: Inception, optimizer: torch.optim.SGD, images: Tensor, labels: Tensor
) -> tuple[float, float]:
    """One step; the main head's loss and the fraction of the batch that it got right."""
    logits = network(images.contiguous(memory_format=torch.channels_last))
    assert isinstance(logits, Logits)
    main_loss = F.cross_entropy(logits.main, labels)
    loss = main_loss + AUXILIARY_LOSS_WEIGHT * F.cross_entropy(logits.auxiliary, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return main_loss.item(), (logits.main.argmax(1) == labels).float().mean().item()


def report(arguments: argparse.Namespace, **record: object) -> None:
    head = {"part": arguments.part, "initialization": arguments.initialization}
    print(json.dumps(head | record), flush=True)


def train(arguments: argparse.Namespace) -> None:
    images, labels = read_classes(arguments.data, arguments.classes)
    network = plain_network(arguments, arguments.image_size, arguments.classes, dropout=0.4)
    optimizer = paper_optimizer(network, arguments.learning_rate)
    generator = torch.Generator().manual_seed(arguments.seed)
    losses: deque[float] = deque(maxlen=AVERAGED_STEPS)
    accuracies: deque[float] = deque(maxlen=AVERAGED_STEPS)
    start = time.perf_counter()
    batches = training_batches(images, labels, arguments.image_size, generator)
    for step in range(1, arguments.steps + 1):
        loss, accuracy = train_step(network, optimizer, *next(batches))
        losses.append(loss)
        accuracies.append(accuracy)
        if step % 25 == 0 or not math.isfinite(loss):
            report(
                arguments,
                step=step,
                loss=round(sum(losses) / len(losses), 4),
                chance=round(math.log(arguments.classes), 4),
                training_accuracy=round(sum(accuracies) / len(accuracies), 4),
                seconds=round(time.perf_counter() - start, 1),
            )
        if not math.isfinite(loss):
            return


def read_classes(root: Path, classes: int) -> tuple[Tensor, Tensor]:
    """All training images of the first classes: uint8 (N, 3, 64, 64), and labels (N)."""
    images, labels = [], []
    folders = sorted(path for path in (root / "train").iterdir() if path.is_dir())[:classes]
    for label, folder in enumerate(folders):
        for path in sorted(folder.rglob("*.JPEG")):
            images.append(np.asarray(Image.open(path).convert("RGB")))
            labels.append(label)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.tensor(labels)


def training_batches(
    images: Tensor, labels: Tensor, image_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches in [-1, 1] for ever: crops of 7/8 of the side at random places, mirrored."""
    crop = images.shape[-1] * 7 // 8
    while True:
        for indices in torch.randperm(len(images), generator=generator).split(BATCH):
            if len(indices) < BATCH:
                continue
            draws = torch.rand(BATCH, 3, generator=generator).tolist()
            crops = []
            for index, (vertical, horizontal, mirror) in zip(indices, draws, strict=True):
                top = int(vertical * (images.shape[-2] - crop + 1))
                left = int(horizontal * (images.shape[-1] - crop + 1))
                part = images[index, :, top : top + crop, left : left + crop]
                crops.append(part.flip(2) if mirror < 0.5 else part)
            batch = torch.stack(crops).float()
            batch = F.interpolate(batch, size=image_size, mode="bilinear", antialias=True)
            yield batch / 127.5 - 1.0, labels[indices]


def signal(arguments: argparse.Namespace) -> None:
    images = read_photographs(arguments.photographs, 224)
    # Without dropout: it is noise here, and the paper's 40 % would slow the memorizing.
    network = plain_network(arguments, 224, 1000, dropout=0.0)
    report_signal(arguments, network, images)
    optimizer = paper_optimizer(network, arguments.learning_rate)
    labels = torch.arange(BATCH)
    start = time.perf_counter()
    for step in range(1, arguments.steps + 1):
        loss, accuracy = train_step(network, optimizer, images, labels)
        if step % 5 == 0 or step == 1 or not math.isfinite(loss):
            report(
                arguments,
                memorizing_step=step,
                loss=round(loss, 4),
                chance=round(math.log(1000), 4),
                indifferent=round(math.log(BATCH), 4),
                training_accuracy=round(accuracy, 4),
                seconds=round(time.perf_counter() - start, 1),
            )
        if not math.isfinite(loss):
            return


def report_signal(arguments: argparse.Namespace, network: Inception, images: Tensor) -> None:
    outputs: dict[str, dict[str, float]] = {}

    def measure(name: str, output: Tensor) -> None:
        output = output.detach()
        power = output.square().mean().sqrt().item()
        # Of each activation over the photographs, against the power: 0 for outputs that do not
        # depend on the image, up to 1 for those that share no mean.
        differing = output.var(0, correction=0).mean().sqrt().item()
        outputs[name] = {"rms": power, "differing": differing / max(power, 1e-30)}

    hooks = [
        row.register_forward_hook(lambda _, __, output, name=name: measure(name, output))
        for name, row in network.named_rows()
    ]
    logits = network(images)
    for hook in hooks:
        hook.remove()
    labels = torch.arange(BATCH)
    loss = F.cross_entropy(logits.main, labels)
    (loss + AUXILIARY_LOSS_WEIGHT * F.cross_entropy(logits.auxiliary, labels)).backward()
    for name, row in network.named_rows():
        # Convolution and linear weights: the gradient, alone and relative to the weights.
        weights = [p for p in row.parameters() if p.dim() > 1 and p.grad is not None]
        norms = {}
        if weights:
            gradient = math.sqrt(sum(p.grad.square().sum().item() for p in weights))
            weight = math.sqrt(sum(p.detach().square().sum().item() for p in weights))
            norms = {"gradient": gradient, "gradient_to_weight": gradient / weight}
        record = {key: float(f"{value:.4g}") for key, value in (outputs[name] | norms).items()}
        report(arguments, row=name, **record)
    report(arguments, initial_loss=round(loss.item(), 4), chance=round(math.log(1000), 4))


def read_photographs(path: Path, size: int) -> Tensor:
    """BATCH photographs from all over the archive, their central squares at `size`, in [-1, 1]."""
    images = []
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".JPEG"))
        for name in names[:: len(names) // BATCH][:BATCH]:
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = (left, top, left + side, top + side)
            image = image.resize((size, size), Image.Resampling.BILINEAR, square)
            images.append(np.asarray(image))
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    return batch.contiguous(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()
