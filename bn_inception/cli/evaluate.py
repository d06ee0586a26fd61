"""`bn-inception evaluate`: errors of a checkpoint on held-out images, and its predictions."""

import functools
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bn_inception.cli.command import Call, Command
from bn_inception.cli.export import Which, checkpoint_file
from bn_inception.cli.output import output_file
from bn_inception.cli.progress import ProgressBar
from bn_inception.cli.statistics import (
    Reported,
    in_words,
    mini_batches,
    statistics_wanted,
    with_population,
)
from bn_inception.config import run_config
from bn_inception.config.saved import saved_config
from bn_inception.data import (
    Backend,
    DataConfig,
    Sources,
    open_sources,
    preprocessing,
)
from bn_inception.errors import UserError
from bn_inception.evaluation import saved
from bn_inception.evaluation.crops import CropSetting
from bn_inception.evaluation.inference import Folding, Statistics, fold_checked
from bn_inception.evaluation.multicrop import MultiCropResult, evaluate_crops
from bn_inception.network import Precision, computing, set_precision
from bn_inception.network.checkpoint import LoadedNetwork, load_network
from bn_inception.quoting import printable
from bn_inception.record.interval import wilson_interval
from bn_inception.training.population import PopulationBatches
from bn_inception.training.session import choose_device
from bn_inception.training.settings import ProcessorConfig, RunConfig

SHOWN_UNREADABLE = 5
SHOWN_CONFUSED = 5
HERE = ("cache",)
"""Keys of `data.` that belong to the machine, not to the run."""


@dataclass
class EvaluateSettings:
    """`evaluate.*`: crops that the network sees at a time, folding, Algorithm 2's mini-batches.

    `population_batches` None takes the statistics that the checkpoint carries; where it carries
    none, over as many mini-batches as the run's evaluations. `precision` is the number format in
    which the crops go through the network; statistics, folding and its check are in float32.
    """

    batch: int
    fold: bool
    population_batches: int | None
    precision: Precision

    def __post_init__(self) -> None:
        for name in ("batch", "population_batches"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"evaluate.{name}: {value} is not 1 or more")


@dataclass
class EvaluateConfig:
    """The keys of `configs/evaluate.yaml`."""

    run: str | None
    checkpoint: str | None
    which: Which
    crops: str
    statistics: Reported | None
    output: str | None
    evaluate: EvaluateSettings
    data: DataConfig
    machine: ProcessorConfig

    def __post_init__(self) -> None:
        settings = [setting.value for setting in CropSetting]
        if self.crops not in settings:
            raise UserError(f"crops: {self.crops!r}; choose from {', '.join(settings)}")
        if self.output is not None and not self.output.endswith(".npz"):
            raise UserError(f"output: {self.output}; give the name of an .npz file")
        if self.output is not None and self.statistics is Reported.both:
            raise UserError(
                f"output: {self.output} is one file and statistics=both makes two; leave output "
                "out, or evaluate with one of the statistics at a time"
            )
        if self.run is None and self.output is None:
            raise UserError("output: not given; without run= give output=FILE.npz")


@dataclass(frozen=True)
class _Run:
    """A run folder: its configuration as composed and as checked, None where it has none."""

    composed: dict[str, Any] | None
    config: RunConfig | None


def complete(composed: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration with the data of the run, where no others are given."""
    given = [override.lstrip("+~").partition("=")[0] for override in overrides]
    trained = _read_run(composed["run"], composed["checkpoint"])
    return {**composed, "data": _data(composed["data"], trained.composed, given)}


def run(call: Call[EvaluateConfig]) -> int:
    """Evaluate; return 0."""
    _evaluate(call.config, _read_run(call.config.run, call.config.checkpoint).config)
    return 0


def _read_run(folder: str | None, checkpoint: str | None) -> _Run:
    if folder is None:
        if checkpoint is None:
            raise UserError("evaluate: nothing to evaluate; give run=FOLDER or checkpoint=FILE")
        return _Run(None, None)
    if not Path(folder).is_dir():
        raise UserError(f"run: {folder}: no such folder; give one such as outputs/<run.name>")
    composed = saved_config(Path(folder))
    if composed is None:
        return _Run(None, None)  # imported weights have no training behind them
    return _Run(composed, run_config(composed))


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
    root = own.get("root")
    if isinstance(root, str) and "://" in root and "root" not in keys:
        raise UserError(
            f"data.root: {root} stands in the run's config.yaml, and is not opened for that; give "
            f"data.root=URL to read it, or other data"
        )
    return {**{key: composed[key] for key in HERE}, **own, **{key: composed[key] for key in keys}}


def _evaluate(config: EvaluateConfig, trained: RunConfig | None) -> None:
    device = choose_device(config.machine.device)
    if config.machine.threads is not None:
        torch.set_num_threads(config.machine.threads)
    precision = config.evaluate.precision
    remark = set_precision(precision, device, key="evaluate.precision")
    if remark is not None:
        _say(f"warning: {remark}")
    file = _checkpoint(config)
    loaded = load_network(file)
    given = config.evaluate.population_batches
    wanted = statistics_wanted(config.statistics, given, trained, loaded, file)
    outputs = {statistics: _output(config, statistics) for statistics in wanted}
    sources = open_sources(config.data)
    for warning in [*sources.warnings, *_warnings(loaded, config.data.backend)]:
        _say(f"warning: {warning}")
    _require_same_classes(file, loaded, sources)
    setting = CropSetting(config.crops)
    network = loaded.network.to(device)
    print(
        f"{file}: {loaded.recipe or 'network'}, step {loaded.step}, {network.num_classes} classes; "
        f"{len(sources.validation):,} images, crops={setting.value} of {loaded.config.image_size}"
    )
    for statistics in wanted:
        batches = None
        if statistics is Statistics.population:
            batches = mini_batches(given, trained, loaded)
        evaluated, folding = network, None
        if statistics is Statistics.running:
            evaluated.load_state_dict(loaded.running_statistics, strict=False)
        elif batches != loaded.population_batches:
            assert trained is not None and batches is not None
            data = config.data
            images = PopulationBatches(trained, sources.train, data, data.workers, batches)
            evaluated = with_population(network, images, device)
        print(f"\n{in_words(statistics, batches, trained)}")
        if config.evaluate.fold:
            folding = fold_checked(evaluated, sources.validation, device)
            _print_folding(folding)
        count = len(sources.validation)
        with closing(ProgressBar(sys.stderr)) as bar, computing(precision, device):
            bar("images", 0, count)
            result = evaluate_crops(
                evaluated if folding is None else folding.network,
                sources.validation,
                setting=setting,
                image_size=loaded.config.image_size,
                batch=config.evaluate.batch,
                workers=config.data.workers,
                device=device,
                backend=config.data.backend,
                progress=functools.partial(_advance, bar, count),
            )
        _report(config, outputs[statistics], loaded, sources, setting, statistics, batches, result,
                folding)  # fmt: skip


def _report(
    config: EvaluateConfig,
    output: Path,
    loaded: LoadedNetwork,
    sources: Sources,
    setting: CropSetting,
    statistics: Statistics | None,
    batches: int | None,
    result: MultiCropResult,
    folding: Folding | None,
) -> None:
    """Print what an evaluation came to and write its files."""
    source = sources.validation
    meta: dict[str, Any] = {
        "crops": setting.value,
        "image_size": loaded.config.image_size,
        "statistics": None if statistics is None else statistics.value,
        "precision": config.evaluate.precision.value,
        "checkpoint": {"sha256": loaded.sha256, "recipe": loaded.recipe, "step": loaded.step},
        "preprocessing": preprocessing.describe(config.data.backend),
        "data": {
            "kind": config.data.kind.value,
            "split": "validation",
            "fingerprint": source.fingerprint(),
        },
    }
    if batches is not None:
        meta["population_batches"] = batches
    settings = {
        "folded": folding is not None and folding.accepted,
        "folding_difference": None if folding is None else folding.difference,
        "batch": config.evaluate.batch,
    }
    made = saved.predictions(result, source, meta)
    described = saved.summary(result, made, setting, settings)

    for name, wrong in (("top-1", result.wrong), ("top-5", result.wrong_top5)):
        low, high = wilson_interval(wrong / result.count, result.count)
        print(
            f"{name} error {wrong / result.count:7.2%}  (95 %: {low:.2%} to {high:.2%}; "
            f"{wrong:,} of {result.count:,} images)"
        )
    print(
        f"{described['images_per_second']:.1f} images/s, "
        f"{described['crops_per_second']:.0f} crops/s"
    )
    if described["confused"]:
        pairs = described["confused"][:SHOWN_CONFUSED]
        print(
            "most confused: "
            + ", ".join(f"{p['label']} as {p['predicted']} ({p['images']})" for p in pairs)
        )
    unreadable = list(result.unreadable.items())
    if unreadable:
        _say(f"warning: {len(unreadable)} images cannot be read; each counts as an error")
        for index, reason in unreadable[:SHOWN_UNREADABLE]:
            _say(f"  {source.name(index)}: {reason}")
        if len(unreadable) > SHOWN_UNREADABLE:
            _say(f"  all are in {output.with_suffix('.json')}")
    _make_folder(output)
    for path in saved.write_evaluation(output, result, made, described):
        print(path)


def _output(config: EvaluateConfig, statistics: Statistics | None) -> Path:
    """Where the predictions go; refused before the work if it cannot be written there."""
    given = output_file(config.output)
    if given is not None:
        return given
    assert config.run is not None
    last = "-last" if config.checkpoint is None and config.which is Which.last else ""
    folder = Path(config.run)
    precision = config.evaluate.precision
    format_ = "" if precision is Precision.fp32 else f"-{precision.value}"
    kind = "" if statistics is None else f"-{statistics.value}"
    path = folder / "evaluation" / f"{config.crops}{kind}{last}{format_}.npz"
    if path.is_dir():
        raise UserError(f"output: {path} is a folder; give the name of a file")
    if not os.access(path.parent if path.parent.is_dir() else folder, os.W_OK):
        raise UserError(f"output: {path.parent} cannot be written; choose another output=FILE.npz")
    return path


def _make_folder(output: Path) -> None:
    try:
        output.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{output.parent}: cannot be created ({error.strerror})") from error


def _checkpoint(config: EvaluateConfig) -> Path:
    if config.checkpoint is not None:
        return Path(config.checkpoint)
    assert config.run is not None
    return checkpoint_file(config.run, config.which)


def _warnings(loaded: LoadedNetwork, backend: Backend) -> list[str]:
    if loaded.preprocessing is None:
        return []
    found = preprocessing.differences(loaded.preprocessing, preprocessing.describe(backend))
    if not found:
        return []
    return [f"images are not read as in training, accuracy may differ: {'; '.join(found)}"]


def _require_same_classes(file: Path, loaded: LoadedNetwork, sources: Sources) -> None:
    classes, here = loaded.classes, sources.validation.classes
    if loaded.network.num_classes != len(here):
        raise UserError(
            f"checkpoint {file}: trained on {loaded.network.num_classes} classes, the data has "
            f"{len(here)}; give the data set it was trained on"
        )
    for label, (name, found) in enumerate(zip(classes or here, here, strict=True)):
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
        _say(f"warning: {line}; evaluated unfolded")


def _advance(bar: ProgressBar, count: int, done: int) -> None:
    bar("images", done, count)


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


COMMAND = Command("evaluate", EvaluateConfig, run, plain="run", complete=complete)
