"""`bn-inception evaluate`: errors of a checkpoint on held-out images, and its predictions."""

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bn_inception.cli.command import Call, Command
from bn_inception.cli.export import Which, checkpoint_file
from bn_inception.cli.output import output_file
from bn_inception.cli.progress import ProgressBar
from bn_inception.cli.statistics import Reported, Way, statistics_wanted
from bn_inception.config import compose, run_config
from bn_inception.config.saved import refuse_saved_url, saved_config
from bn_inception.data import Backend, DataConfig, ImageSource, open_sources, preprocessing
from bn_inception.errors import UserError
from bn_inception.evaluation import saved
from bn_inception.evaluation.crops import crop_rule
from bn_inception.evaluation.evaluate import SourceResult, evaluate_source
from bn_inception.evaluation.inference import Folding, fold_checked
from bn_inception.network import Precision, computing, set_precision
from bn_inception.network.checkpoint import LoadedNetwork, load_network
from bn_inception.quoting import printable
from bn_inception.training.machine import choose_device
from bn_inception.training.settings import ProcessorConfig

SHOWN_UNREADABLE = 5
SHOWN_CONFUSED = 5
HERE = ("cache",)
"""Keys of `data.` that belong to the machine, not to the run."""


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
class InferenceConfig:
    """How networks are put to images; the keys beside what is evaluated."""

    run: str | None
    checkpoint: str | None
    which: Which
    crops: str
    batch_size: int
    machine: EvaluationMachine

    def __post_init__(self) -> None:
        crop_rule(self.crops)
        if self.batch_size < 1:
            raise UserError(f"batch_size: {self.batch_size} is not 1 or more")

    def evaluated(
        self,
        network: nn.Module,
        source: ImageSource,
        image_size: int,
        device: torch.device,
        workers: int | None,
        backend: Backend,
    ) -> SourceResult:
        """Evaluate every image of `source`, with a bar on the terminal."""
        rule, count = crop_rule(self.crops), len(source)
        with closing(ProgressBar(sys.stderr)) as bar, computing(self.machine.precision, device):
            bar("images", 0, count)
            return evaluate_source(
                network,
                source,
                rule,
                image_size=image_size,
                batch_size=self.batch_size,
                workers=workers,
                device=device,
                backend=backend,
                progress=lambda done: bar("images", done, count),
            )


@dataclass
class EvaluateConfig(InferenceConfig):
    """The keys of `configs/evaluate.yaml`.

    `population_batches` None takes the statistics that the checkpoint carries; where it carries
    none, over as many mini-batches as the run's evaluations.
    """

    statistics: Reported | None
    population_batches: int | None
    fold: bool
    output: str | None
    data: DataConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.population_batches is not None and self.population_batches < 1:
            raise UserError(f"population_batches: {self.population_batches} is not 1 or more")
        if self.output is not None and not self.output.endswith(".npz"):
            raise UserError(f"output: {self.output}; give the name of an .npz file")
        if self.output is not None and self.statistics is Reported.both:
            raise UserError(
                f"output: {self.output} is one file and statistics=both makes two; leave output "
                "out, or evaluate with one of the statistics at a time"
            )
        if self.run is None and self.output is None:
            raise UserError("output: not given; without run= give output=FILE.npz")


def read(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration with the data of the run, where no others are given."""
    composed = compose("evaluate", overrides)
    given = [override.lstrip("+~").partition("=")[0] for override in overrides]
    of_run = _read_run(composed["run"], composed["checkpoint"])
    return {**composed, "data": _data(composed["data"], of_run, given)}


def _read_run(folder: str | None, checkpoint: str | None) -> dict[str, Any] | None:
    """The run's configuration, None where there is none."""
    if folder is None:
        if checkpoint is None:
            raise UserError("evaluate: nothing to evaluate; give run=FOLDER or checkpoint=FILE")
        return None
    if not Path(folder).is_dir():
        raise UserError(f"run: {folder}: no such folder; give one such as outputs/<run.name>")
    return saved_config(Path(folder))


def _data(
    composed: dict[str, Any], trained: dict[str, Any] | None, given: Sequence[str]
) -> dict[str, Any]:
    """The data section: as given with data=, else the run's own with the data.KEY= given.

    Where data are kept on this machine is never the run's to say, and a URL is not opened because
    a run folder, perhaps somebody else's, names it.
    """
    if "data" in given or "data.kind" in given:
        return composed
    if trained is None:
        raise UserError(
            "data: not given, and there is no run's config.yaml to take it from; add data=folder "
            "data.root=FOLDER (or data=imagenet, tiny_imagenet, synthetic)"
        )
    keys = [key.removeprefix("data.") for key in given if key.startswith("data.")]
    own = {key: value for key, value in trained["data"].items() if key not in HERE}
    refuse_saved_url(trained, given)
    return {**{key: composed[key] for key in HERE}, **own, **{key: composed[key] for key in keys}}


def run(call: Call[EvaluateConfig]) -> int:
    """Evaluate; return 0."""
    config = call.config
    of_run = _read_run(config.run, config.checkpoint)
    trained = None if of_run is None else run_config(of_run)
    if trained is not None and trained.train.steps == 0:
        trained = None  # imported weights: there is no training behind them
    device = config.machine.prepare()
    file = checkpoint_file(config.run, config.checkpoint, config.which)
    loaded = load_network(file)
    ways = statistics_wanted(config.statistics, config.population_batches, trained, loaded, file)
    outputs = [_output(config, way) for way in ways]
    sources = open_sources(config.data)
    for warning in [*sources.warnings, *_warnings(loaded, config.data)]:
        say(f"warning: {warning}")
    source, size = sources.validation, loaded.config.image_size
    _require_same_classes(file, loaded, source.classes)
    print(
        f"{file}: {loaded.recipe or 'network'}, step {loaded.step}, {len(source.classes)} classes; "
        f"{len(source):,} images, crops={config.crops} of {size}"
    )
    for way, output in zip(ways, outputs, strict=True):
        unfolded = way.network(loaded, trained, config.data, sources, device)
        print(f"\n{way.in_words(trained)}")
        folding = fold_checked(unfolded, source, device) if config.fold else None
        if folding is not None:
            _print_folding(folding)
        network = unfolded if folding is None else folding.network
        result = config.evaluated(
            network, source, size, device, config.data.workers, config.data.backend
        )
        _report(config, output, loaded, source, way, result, folding)
    return 0


def _report(
    config: EvaluateConfig,
    output: Path,
    loaded: LoadedNetwork,
    source: ImageSource,
    way: Way,
    result: SourceResult,
    folding: Folding | None,
) -> None:
    """Print what an evaluation came to and write its files."""
    meta: dict[str, Any] = {
        "crops": config.crops,
        "image_size": loaded.config.image_size,
        "statistics": None if way.statistics is None else way.statistics.value,
        "precision": config.machine.precision.value,
        "checkpoint": {"sha256": loaded.sha256, "recipe": loaded.recipe, "step": loaded.step},
        "preprocessing": preprocessing.describe(config.data.backend),
        "data": {
            "kind": config.data.kind.value,
            "split": "validation",
            "fingerprint": source.fingerprint,
        },
    }
    if way.batches is not None:
        meta["population_batches"] = way.batches
    settings = {
        "folded": folding is not None and folding.accepted,
        "folding_difference": None if folding is None else folding.difference,
        "batch_size": config.batch_size,
    }
    made = saved.predictions(result, source, meta)
    described = saved.summary(result, made, settings)
    print(*result.counts.errors.lines(), sep="\n")
    print(
        f"{described['images_per_second']:.1f} images/s, "
        f"{described['crops_per_second']:.0f} crops/s"
    )
    pairs = described["confused"][:SHOWN_CONFUSED]
    if pairs:
        named = (f"{pair['label']} as {pair['predicted']} ({pair['images']})" for pair in pairs)
        print(f"most confused: {', '.join(named)}")
    unreadable = list(result.unreadable.items())
    if unreadable:
        say(f"warning: {len(unreadable)} images cannot be read; each counts as an error")
        for index, reason in unreadable[:SHOWN_UNREADABLE]:
            say(f"  {source.name(index)}: {reason}")
        if len(unreadable) > SHOWN_UNREADABLE:
            say(f"  all are in {output.with_suffix('.json')}")
    try:
        output.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{output.parent}: cannot be created ({error.strerror})") from error
    for path in saved.write_evaluation(output, made, described):
        print(path)


def _output(config: EvaluateConfig, way: Way) -> Path:
    """Where the predictions go; refused before the work if it cannot be written there."""
    given = output_file(config.output)
    if given is not None:
        return given
    assert config.run is not None
    parts = [config.crops]
    if way.statistics is not None:
        parts.append(way.statistics.value)
    if config.checkpoint is None and config.which is Which.last:
        parts.append("last")
    if config.machine.precision is not Precision.fp32:
        parts.append(config.machine.precision.value)
    folder = Path(config.run)
    path = folder / "evaluation" / f"{'-'.join(parts)}.npz"
    if path.is_dir():
        raise UserError(f"output: {path} is a folder; give the name of a file")
    if not os.access(path.parent if path.parent.is_dir() else folder, os.W_OK):
        raise UserError(f"output: {path.parent} cannot be written; choose another output=FILE.npz")
    return path


def _warnings(loaded: LoadedNetwork, data: DataConfig) -> list[str]:
    now = preprocessing.describe(data.backend)
    found = preprocessing.differences(loaded.preprocessing or now, now)
    told = f"images are not read as in training, accuracy may differ: {'; '.join(found)}"
    return [told] if found else []


def _require_same_classes(file: Path, loaded: LoadedNetwork, here: Sequence[str]) -> None:
    trained = loaded.network.num_classes
    if trained != len(here):
        raise UserError(
            f"checkpoint {file}: trained on {trained} classes, the data has {len(here)}; give the "
            "data set it was trained on"
        )
    for label, (name, found) in enumerate(zip(loaded.classes or here, here, strict=True)):
        if name != found:
            raise UserError(
                f"checkpoint {file}: class {label} is {name} in training and {found} in the data; "
                "give the data set it was trained on"
            )


def _print_folding(folding: Folding) -> None:
    if folding.difference is None:
        return
    line = (
        f"BN folded into the convolutions: logits differ by at most {folding.difference:.2g} "
        f"on {folding.images} images"
    )
    if folding.accepted:
        print(line)
    else:
        say(f"warning: {line}; evaluated unfolded")


def say(line: str) -> None:
    """Tell the user something beside the results."""
    print(printable(line), file=sys.stderr, flush=True)


COMMAND = Command("evaluate", EvaluateConfig, run, read=read)
