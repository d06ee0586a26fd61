"""What each initialization does to the plain network and to the BN networks.

    python experiments/initialization.py signal OUTPUT.json --photographs PHOTOGRAPHS.zip
    python experiments/initialization.py signal OUTPUT.json --images TINY_IMAGENET \
        --image-size 32 --width 0.25 --classes 100
    python experiments/initialization.py train OUTPUT.json --rules he,xavier \
        --recipes inception,bn_x5 --steps 300 scale=cpu data=tiny_imagenet data.root=FOLDER

`signal` needs no training. For each rule and network it sends some images through, without dropout
and in float64 where there are sigmoids. Of each row of Figure 5 it writes the root mean square of
the output, the part of it that differs between images (0 for outputs that all images share, up to
1 for those that share no mean), and the gradient's norm over the weights'. `train` makes the first
updates of a run from each rule, on the same mini-batches, and writes the mean training loss of the
last 50.
"""

import argparse
import io
import json
import math
import statistics
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from short_training import ShortTraining
from torch import Tensor

from bn_inception.config import compose, run_config
from bn_inception.files import write_json
from bn_inception.network import (
    AUXILIARY_LOSS_WEIGHT,
    Inception,
    Initialization,
    Nonlinearity,
    initialize,
)

RULES = [rule.value for rule in Initialization if rule is not Initialization.xavier_sigmoid]
SIGNALS = {
    "inception": RULES,
    "bn_baseline": RULES,
    "inception_sigmoid": ["he", "xavier_sigmoid"],
}
"""Recipe to rules. The BN recipes differ in dropout and LRN alone."""
SHOWN = ("conv1", "3a", "4a", "5b")
AVERAGED_STEPS = 50


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["signal", "train"])
    parser.add_argument("output", type=Path)
    parser.add_argument("--photographs", type=Path, help="signal: zip of JPEGs")
    parser.add_argument("--images", type=Path, help="signal: folder with train/<wnid>/**.JPEG")
    parser.add_argument("--count", type=int, default=32, help="signal: images, 32 at most")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rules", default=",".join(RULES), help="train")
    parser.add_argument("--recipes", default="inception,bn_x5", help="train")
    parser.add_argument("--steps", type=int, default=300)
    arguments, given = parser.parse_known_args()
    torch.set_num_threads(1)
    if arguments.part == "signal":
        signals(arguments)
    else:
        trainings(arguments, given)


def signals(arguments: argparse.Namespace) -> None:
    size = arguments.image_size
    if arguments.photographs:
        images = squares(photographs(arguments.photographs, arguments.count), size)
    else:
        images = squares(one_of_each_class(arguments.images, arguments.count), size)
    rows = []
    for recipe, rules in SIGNALS.items():
        for rule in rules:
            rows.append(signal(arguments, recipe, rule, images))
            print(as_line(rows[-1]), flush=True)
    keys = ("count", "image_size", "width", "classes", "seed")
    settings = {key: getattr(arguments, key) for key in keys}
    save(arguments.output, {"kind": "initial_signal", **settings, "rows": rows})


def signal(arguments: argparse.Namespace, recipe: str, rule: str, images: Tensor) -> dict[str, Any]:
    """What one network makes of images (N, 3, S, S) at its start."""
    readings = {"initialization": rule, "width": arguments.width, "dropout": 0.0}
    readings["image_size"] = arguments.image_size
    given = [f"network.{key}={value}" for key, value in readings.items()]
    config = run_config(compose("train", [f"recipe={recipe}", "scale=paper", *given]))
    network = Inception(config.network, arguments.classes)
    initialize(network, torch.Generator().manual_seed(arguments.seed))
    network.train()
    if config.network.nonlinearity is Nonlinearity.sigmoid:  # float32 would round the signal away
        network.double()
        images = images.double()
    outputs: dict[str, dict[str, float]] = {}

    def measure(name: str, output: Tensor) -> None:
        outputs[name] = {"rms": rms(output), "differs": differing(output)}

    for name, row in network.named_rows():
        row.register_forward_hook(lambda _, __, output, name=name: measure(name, output.detach()))
    network.classifier.register_forward_hook(
        lambda _, inputs, __: measure("classifier input", inputs[0].detach())
    )
    logits = network(images)
    labels = torch.arange(len(images)) % arguments.classes
    loss = F.cross_entropy(logits.main, labels)
    (loss + AUXILIARY_LOSS_WEIGHT * F.cross_entropy(logits.auxiliary, labels)).backward()
    for name, row in network.named_rows():
        # Convolution and linear weights.
        weights = [p for p in row.parameters() if p.dim() > 1 and p.grad is not None]
        if weights:
            gradient = math.sqrt(sum(float(p.grad.square().sum()) for p in weights))
            weight = math.sqrt(sum(float(p.detach().square().sum()) for p in weights))
            outputs[name]["gradient_to_weight"] = gradient / weight
    rounded = {
        name: {key: float(f"{value:.4g}") for key, value in found.items()}
        for name, found in outputs.items()
    }
    return {"recipe": recipe, "rule": rule, "loss": round(loss.item(), 4), "outputs": rounded}


def rms(output: Tensor) -> float:
    return float(output.square().mean().sqrt())


def differing(output: Tensor) -> float:
    """Standard deviation of each activation over the images, over the root mean square."""
    return float(output.var(0, correction=0).mean().sqrt()) / max(rms(output), 1e-300)


def as_line(row: dict[str, Any]) -> str:
    """A line of the table in docs/fidelity.md."""
    outputs = row["outputs"]
    gradients = " / ".join(f"{outputs[name]['gradient_to_weight']:.2g}" for name in SHOWN)
    share = outputs["5b"]["differs"]
    return (
        f"| {row['recipe']} | {row['rule']} | {outputs['5b']['rms']:.2g} | {share:.2g} "
        f"| {outputs['classifier input']['differs']:.2g} | {gradients} | {row['loss']:.2f} |"
    )


def photographs(path: Path, count: int) -> Iterable[Image.Image]:
    """Photographs from all over an archive."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".JPEG"))
        for name in names[:: len(names) // count][:count]:
            yield Image.open(io.BytesIO(archive.read(name)))


def one_of_each_class(root: Path, count: int) -> Iterable[Image.Image]:
    """The first training image of each of the first classes."""
    folders = sorted(path for path in (root / "train").iterdir() if path.is_dir())
    for folder in folders[:count]:
        yield Image.open(sorted(folder.rglob("*.JPEG"))[0])


def squares(images: Iterable[Image.Image], size: int) -> Tensor:
    """Central squares at `size`, in [-1, 1]: (N, 3, size, size)."""
    pixels = []
    for image in images:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        square = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box)
        pixels.append(np.asarray(square))
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def trainings(arguments: argparse.Namespace, given: list[str]) -> None:
    """Rows that the output holds already are kept."""
    found: dict[str, Any] = {"kind": "initial_training", "given": given, "rows": []}
    if arguments.output.exists():
        found = json.loads(arguments.output.read_text())
    done = {(row["recipe"], row["rule"], row["steps"]) for row in found["rows"]}
    for recipe in arguments.recipes.split(","):
        training: ShortTraining | None = None
        for rule in arguments.rules.split(","):
            if (recipe, rule, arguments.steps) in done:
                continue
            keys = [*given, f"recipe={recipe}", f"run.seed={arguments.seed}"]
            training = training or ShortTraining(keys, arguments.steps)
            updates = list(training.updates(f"network.initialization={rule}"))
            last = updates[-AVERAGED_STEPS:]
            row = {
                "recipe": recipe,
                "rule": rule,
                "steps": arguments.steps,
                "loss": round(statistics.fmean(update.loss for update in last), 4),
                "top1": round(statistics.fmean(update.top1 for update in last), 4),
                "chance": round(math.log(training.classes), 4),
            }
            if not math.isfinite(row["loss"]):
                row |= {"loss": None, "nonfinite_at": len(updates)}
            found["rows"].append(row)
            print(json.dumps(row), flush=True)
            save(arguments.output, found)


def save(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


if __name__ == "__main__":
    main()
