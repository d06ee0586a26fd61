"""`bn-inception evaluate`, `predict` and `export`: what a trained network is used for."""

import itertools
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bn_inception.cli.command import Call, command, output_file
from bn_inception.cli.help import WIDTH
from bn_inception.cli.main import BAD_INPUT
from bn_inception.cli.terminal import ProgressBar
from bn_inception.config import compose, run_config
from bn_inception.config.compose import Config, keys_given
from bn_inception.config.saved import saved_config, take_given
from bn_inception.data import DataConfig, ImageSource, UnreadableImage, open_sources, preprocessing
from bn_inception.errors import UserError, require_at_least
from bn_inception.evaluation.classifier import load, run_checkpoint
from bn_inception.evaluation.crops import crop_rule
from bn_inception.evaluation.evaluate import SourceResult, evaluate_source
from bn_inception.files import expanded, make_folder, write_json
from bn_inception.network import (
    Inception,
    Precision,
    computing,
    population_statistics,
    running_statistics,
    set_precision,
)
from bn_inception.network.checkpoint import LoadedNetwork, load_network
from bn_inception.network.export import save_exported
from bn_inception.network.folding import fold_checked
from bn_inception.quoting import printable, say
from bn_inception.record.environment import read_environment
from bn_inception.record.predictions import write_predictions
from bn_inception.training.batches import population_inputs
from bn_inception.training.machine import choose_device
from bn_inception.training.settings import ProcessorConfig, RunConfig

SHOWN = 5
"""Of unreadable images, and of pairs of classes that are confused most."""


class Which(Enum):
    """Which checkpoint of a run: of its best evaluation, or of its last step."""

    best = "best"
    last = "last"


class Statistics(Enum):
    """Which means and variances BN normalizes with at inference.

    `running`: the moving averages that training kept; they lag behind its weights.
    `population`: BN Algorithm 2, see `population_statistics`; what a run is judged by.
    `both`: an evaluation with each.
    """

    running = "running"
    population = "population"
    both = "both"


@dataclass
class EvaluationMachine(ProcessorConfig):
    """`machine.*`: crops go through the network in `precision`, folding is checked in float32."""

    precision: Precision

    def prepare(self) -> torch.device:
        """The device, with threads and number format set."""
        device = choose_device(self.device)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        remark = set_precision(self.precision, device, key="machine.precision")
        if remark is not None:
            say(f"warning: {remark}")
        return device


@dataclass
class EvaluateConfig:
    """The keys of `configs/evaluate.yaml`."""

    run: str | None
    checkpoint: str | None
    which: Which
    crops: str
    statistics: Statistics | None
    population_batches: int | None
    batch_size: int
    fold: bool
    output: str | None
    data: DataConfig
    machine: EvaluationMachine

    def __post_init__(self) -> None:
        crop_rule(self.crops)
        for key in ("batch_size", "population_batches"):
            require_at_least(key, getattr(self, key), 1)
        if self.output is not None and self.statistics is Statistics.both:
            raise UserError(
                f"output: {self.output} is one file and statistics=both makes two; leave output "
                "out, or evaluate with one of the statistics at a time"
            )
        if self.run is None and self.output is None:
            raise UserError("output: not given; without run= give output=FILE.npz")


def read(overrides: list[str]) -> Config:
    """The configuration with the data of the run, where no others are given."""
    composed = compose("evaluate", overrides)
    folder = composed["run"]
    if folder is None and composed["checkpoint"] is None:
        raise UserError("evaluate: nothing to evaluate; give run=FOLDER or checkpoint=FILE")
    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"run: {folder}: no such folder; give one such as outputs/<run.name>")
    given = keys_given(overrides)
    if "data" in given or "data.kind" in given:
        return composed
    trained = None if folder is None else saved_config(Path(folder))
    if trained is None:
        raise UserError(
            "data: not given, and there is no run's config.yaml to take it from; add data=folder "
            "data.root=FOLDER (or data=imagenet, tiny_imagenet, synthetic)"
        )
    take_given(trained, {"data": composed["data"]}, given)
    return {**composed, "data": trained["data"]}


@command("evaluate", EvaluateConfig, read=read)
def evaluate(call: Call[EvaluateConfig]) -> None:
    """Print the errors of a run or checkpoint, and write its predictions."""
    config = call.config
    both = config.statistics is Statistics.both
    # The population first: where it cannot be had, nothing is written.
    for statistics in (Statistics.population, Statistics.running) if both else [config.statistics]:
        _evaluate(replace(config, statistics=statistics))


def _evaluate(config: EvaluateConfig) -> None:
    given = output_file(config.output, ".npz")
    of_run = None if config.run is None else saved_config(Path(config.run))
    trained = None if of_run is None else run_config(of_run)
    device = config.machine.prepare()
    file = _checkpoint_file(config.run, config.checkpoint, config.which)
    loaded = load_network(file)
    statistics, batches = _statistics(config, trained, loaded, file)
    output = given or _default_output(config, statistics)
    sources = open_sources(config.data)
    source, size = sources.validation, loaded.network.config.image_size
    now = preprocessing.describe(config.data.backend)
    differences = preprocessing.differences(loaded.preprocessing, now)
    told = f"images are not read as in training, accuracy may differ: {'; '.join(differences)}"
    for warning in [*sources.warnings, *([told] if differences else [])]:
        say(f"warning: {warning}")
    _require_same_classes(file, loaded, source.classes)
    if given is None and (config.checkpoint or not _has_seen(Path(str(config.run)), source)):
        what = "network" if config.checkpoint else "held-out images"
        raise UserError(f"output: these are not the run's own {what}; give output=FILE.npz")
    print(
        f"{file}: {loaded.recipe}, step {loaded.step}, {len(source.classes)} classes; "
        f"{len(source):,} images, crops={config.crops} of {size}"
    )
    network = loaded.network.to(device)
    if statistics is None:
        print("no Batch Normalization")
    elif batches is None:
        print(f"statistics: {statistics.value}")
        network.load_state_dict(loaded.running_statistics, strict=False)
    else:
        of = "" if trained is None else f" of {trained.batch.mini_batch}"
        print(f"statistics: population (BN Algorithm 2, {batches} mini-batches{of})")
        if trained is not None and batches != loaded.population_batches:
            images, data = sources.train, config.data
            many = replace(trained.train, population_batches=batches)
            inputs = population_inputs(replace(trained, data=data, train=many), images, device)
            with closing(inputs):
                network = population_statistics(network, inputs) or network
    made_with = {
        "crops": config.crops,
        "image_size": size,
        "statistics": None if statistics is None else statistics.value,
        **({} if batches is None else {"population_batches": batches}),
        "precision": config.machine.precision.value,
        "checkpoint": {"sha256": loaded.sha256, "recipe": loaded.recipe, "step": loaded.step},
        "preprocessing": now,
        "data": {
            "kind": config.data.kind.value,
            "split": "validation",
            "fingerprint": source.fingerprint,
        },
    }
    evaluated, difference = _folded(network) if config.fold else (network, None)
    settings = {
        "folded": evaluated is not network,
        "folding_difference": difference,
        "batch_size": config.batch_size,
    }
    result = _evaluated(config, evaluated, source, size, device)
    _report(result, source, made_with, settings, output)


def _statistics(
    config: EvaluateConfig, trained: RunConfig | None, loaded: LoadedNetwork, file: Path
) -> tuple[Statistics | None, int | None]:
    """The statistics of BN to evaluate with, and over how many mini-batches (BN Algorithm 2).

    Where it is left open, those of the population; the network's own where the checkpoint does not
    carry others and there is no run to take them from.
    """
    asked = config.statistics
    if not running_statistics(loaded.network):
        if asked is None:
            return None, None
        raise UserError(
            f"statistics: {asked.value}, but {file} has no Batch Normalization whose statistics "
            "could be taken; leave statistics out"
        )
    configured = None if trained is None else trained.train.population_batches
    batches = config.population_batches or loaded.population_batches or configured
    if asked is Statistics.running or (asked is None and batches is None):
        return Statistics.running, None
    if batches is None or (trained is None and batches != loaded.population_batches):
        raise UserError(
            "statistics: population needs the order and the augmentation of training; give "
            "run=FOLDER of a training run, or statistics=running"
        )
    return Statistics.population, batches


def _folded(network: Inception) -> tuple[Inception, float]:
    folded, difference = fold_checked(network)
    line = f"folded for inference: logits differ by at most {difference:.2g} of the largest"
    if folded is not network:
        print(line)
    else:
        say(f"warning: {line}; evaluated unfolded")
    return folded, difference


def _evaluated(
    config: EvaluateConfig, network: nn.Module, source: ImageSource, size: int, device: torch.device
) -> SourceResult:
    """Every image of `source`, with a bar on the terminal."""
    count = len(source)
    with closing(ProgressBar()) as bar, computing(config.machine.precision, device):
        bar("images", 0, count)
        return evaluate_source(
            network,
            source,
            crop_rule(config.crops),
            image_size=size,
            batch_size=config.batch_size,
            workers=config.data.workers,
            device=device,
            backend=config.data.backend,
            progress=lambda done: bar("images", done, count),
        )


def _report(
    result: SourceResult,
    source: ImageSource,
    made_with: dict[str, Any],
    settings: dict[str, Any],
    output: Path,
) -> None:
    """Print what an evaluation came to and write its files."""
    made = result.predictions(source, made_with)
    described = result.summary(made.meta, settings)
    print(*result.counts.errors.lines(), sep="\n")
    print(f"{described['images_per_second']:.1f} images/s")
    if pairs := described["confused"][:SHOWN]:
        named = (f"{pair['label']} as {pair['predicted']} ({pair['images']})" for pair in pairs)
        print(f"most confused: {', '.join(named)}")
    if unreadable := list(result.unreadable.items()):
        say(f"warning: {len(unreadable)} images cannot be read; each counts as an error")
        for index, reason in unreadable[:SHOWN]:
            say(f"  {source.name(index)}: {reason}")
        if len(unreadable) > SHOWN:
            say(f"  all are in {output.with_suffix('.json')}")
    make_folder(output.parent, "output")
    write_predictions(output, made)
    write_json(output.with_suffix(".json"), described)
    print(output, output.with_suffix(".json"), sep="\n")


def _default_output(config: EvaluateConfig, statistics: Statistics | None) -> Path:
    """Where predictions go in the run's folder; refused before the work if it cannot be written."""
    assert config.run is not None
    parts = [config.crops]
    if statistics is not None:
        parts.append(statistics.value)
    if config.checkpoint is None and config.which is Which.last:
        parts.append("last")
    if config.machine.precision is not Precision.fp32:
        parts.append(config.machine.precision.value)
    run = Path(config.run)
    folder = run / "evaluation"
    if not os.access(folder if folder.is_dir() else run, os.W_OK):
        raise UserError(f"output: {folder} cannot be written; choose another output=FILE.npz")
    return folder / f"{'-'.join(parts)}.npz"


def _has_seen(run: Path, source: ImageSource) -> bool:
    """Whether these are a run's own held-out images; where it does not say, they count as such."""
    described = run / "environment.json"
    said = read_environment(described) if described.is_file() else {}
    return source.fingerprint in str(said.get("data_fingerprint", source.fingerprint))


def _require_same_classes(file: Path, loaded: LoadedNetwork, here: Sequence[str]) -> None:
    classes = itertools.zip_longest(loaded.classes, here, fillvalue="none")
    for label, (name, found) in enumerate(classes):
        if name != found:
            raise UserError(
                f"checkpoint {file}: class {label} of {len(loaded.classes)} is {name} in training, "
                f"and {found} of {len(here)} in the data; give the data set it was trained on"
            )


@command("predict", plain="images")
def predict(run: str | None, checkpoint: str | None, images: list[str], top: int) -> int:
    """Print the likeliest classes, a block an image; the status is 2 if one cannot be read."""
    _require_one("predict", run, checkpoint)
    if not images:
        raise UserError("predict: no images; give files, such as cat.jpg")
    require_at_least("top", top, 1)
    classifier, status = load(checkpoint or run or ""), 0
    for image in images:
        try:
            (likeliest,) = classifier.predict([image], top)
        except UnreadableImage as error:
            say(f"bn-inception: {error.name} cannot be read: {error.reason}")
            status = BAD_INPUT
            continue
        rows = [f"{probability:8.2%}  {printable(name)}" for name, probability in likeliest]
        print(printable(image), *(row[:WIDTH] for row in rows), "", sep="\n", flush=True)
    return status


@command("export")
def export(run: str | None, checkpoint: str | None, which: Which, output: str) -> None:
    """Write a trained network as safetensors with its description."""
    _require_one("export", run, checkpoint)
    loaded = load_network(_checkpoint_file(run, checkpoint, which))
    folder = expanded(output)
    make_folder(folder, "output")
    print(*save_exported(loaded, folder), sep="\n")


def _checkpoint_file(run: str | None, checkpoint: str | None, which: Which) -> Path:
    """The file `checkpoint`, else the checkpoint of a run folder."""
    if checkpoint is not None:
        return Path(checkpoint)
    assert run is not None
    return run_checkpoint(Path(run), f"{which.value}.pt")


def _require_one(command: str, run: str | None, checkpoint: str | None) -> None:
    """Refuse a command that is given both a run and a checkpoint, or neither."""
    if (run is None) == (checkpoint is None):
        raise UserError(f"{command}: give one of run=FOLDER and checkpoint=FILE")
