"""Runs of a few seconds: a small learnable image set, the overrides of short runs, weights."""

import json
import math
import shutil

import numpy as np
import torch
from PIL import Image
from processes import run_ranks
from torch import nn

from bn_inception.cli.main import dispatch
from bn_inception.data import (
    Backend,
    DataConfig,
    DataKind,
    OnError,
    open_sources,
    validation_batches,
)
from bn_inception.errors import UserError
from bn_inception.evaluation.evaluate import evaluate
from bn_inception.network import checkpoint

# A run of a few seconds: 16x16 images, the narrowest network, batches of 8.
TINY = (
    "scale=demo", "scale.image_size=16", "scale.width=0.0625", "batch.images=8", "train.steps=12",
    "train.evaluate_every=4", "train.checkpoint_every=3", "train.log_every=2",
    "train.population_batches=3", "data=folder", "data.workers=0", "machine.device=cpu",
    "machine.threads=1",
)  # fmt: skip


def write_images(root, *, classes=3, train=14, val=5):
    """A small, learnable set in ImageNet's layout: each class has a colour of its own, plus noise.

    The number of held-out images is no multiple of an evaluation batch, and no image is square.
    """
    generator = np.random.default_rng(7)
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            folder = root / split / f"n{label:04d}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 120, (20, 26, 3))
                pixels[..., label % 3] += 110
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(folder / f"{index}.JPEG", quality=90)
    return root


def in_float64(network):
    """`network` in float64 with He weights of numpy's, for comparisons with stored numbers.

    Processors differ in the last bits of torch's normal numbers, and in the masks of its dropout,
    which is off: torch has Intel's generator draw them on Intel.
    """
    generator = np.random.default_rng(0)
    network.double()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            std = math.sqrt(2 / module.weight[0].numel())
            drawn = generator.standard_normal(tuple(module.weight.shape))
            module.weight.data.copy_(std * torch.from_numpy(drawn))
        if isinstance(module, nn.Dropout):
            module.eval()
    return network


def contents(folder):
    """Every file of a run but the lock, by its path."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): path.read_bytes() for path in files}


def read_records(folder):
    """Of `metrics.jsonl`, without the one thing that no two runs share, their speed."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{**json.loads(line), "images_per_second": None} for line in lines]


def differences(whole, folder, without=()):
    """In which respects a run differs from another, bit for bit; speeds and times are left out.

    Args:
        without: names of checkpoints that are not compared.
    """
    try:
        one, other = (_kept(run, {"last.pt", "best.pt"} - set(without)) for run in (whole, folder))
    except (UserError, OSError, ValueError) as error:
        return [str(error)]
    return [f"another {name}" for name in one if not _same(one[name], other[name])]


def _kept(folder, checkpoints):
    kept = {"record in metrics.jsonl": read_records(folder)}
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("status", "step", "images_seen", "best", "milestones", "started_learning"):
        kept[f"{key} in summary.json"] = summary.get(key)
    for name in checkpoints:
        state = checkpoint.load(folder / "checkpoints" / name)
        for key in ("network", "optimizer", "running_statistics", "step", "interval"):
            kept[f"{key} in {name}"] = state.get(key)
    return kept


def _same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


class Runs:
    """Starts runs on the small set through the command, and reads what they leave."""

    def __init__(self, root, images, *given):
        self.root, self.images, self.given = root, images, given

    def arguments(self, name, *overrides):
        """The command without `train`; `overrides` win over what all of these runs are given."""
        folders = [f"run.root={self.root}", f"run.name={name}", f"data.root={self.images}"]
        return [*TINY, *self.given, *folders, *overrides]

    def train(self, name, *overrides):
        """The exit status of a run in this process."""
        return dispatch(["train", *self.arguments(name, *overrides)])

    def train_on(self, ranks, name, *overrides):
        """The exit statuses of a run on several processes, or what they raised."""
        command = ["train", *self.arguments(name, *overrides)]
        return run_ranks(ranks, lambda rank: dispatch(command))

    def folder(self, name):
        """Of a run."""
        return self.root / name

    def copy(self, name, root):
        """The same with a copy of one of its runs, which may be changed, in `root`."""
        shutil.copytree(self.folder(name), root / name)
        return Runs(root, self.images, *self.given)

    def summary(self, name):
        return json.loads((self.folder(name) / "summary.json").read_text())

    def environment(self, name):
        return json.loads((self.folder(name) / "environment.json").read_text())

    def records(self, name, kind=""):
        """All of them, or those of one kind."""
        records = read_records(self.folder(name))
        return [record for record in records if kind in ("", record["kind"])]

    def state(self, name, file="last.pt"):
        """A checkpoint."""
        return checkpoint.load(self.folder(name) / "checkpoints" / file)

    def judged(self, name, batch=64):
        """What the saved best network comes to on the held-out images, read `batch` at a time."""
        best = checkpoint.load_network(self.folder(name) / "checkpoints" / "best.pt")
        source = open_sources(DataConfig(DataKind.folder, str(self.images))).validation
        batches = validation_batches(
            source,
            image_size=16,
            batch=batch,
            workers=0,
            on_error=OnError.fail,
            backend=Backend.fast,
        )
        return evaluate(best.network, batches, torch.device("cpu"))

    def assert_equal(self, one, other):
        """Bit for bit: checkpoints, the whole record, best and milestones."""
        assert differences(self.folder(one), self.folder(other)) == []
