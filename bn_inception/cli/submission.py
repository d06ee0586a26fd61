"""`bn-inception submission`: the ILSVRC test-server file for a folder of unlabelled images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bn_inception.cli.command import Call, Command
from bn_inception.cli.evaluate import InferenceConfig, say
from bn_inception.cli.export import checkpoint_file
from bn_inception.cli.output import output_file
from bn_inception.data import preprocessing
from bn_inception.errors import UserError
from bn_inception.evaluation import submission
from bn_inception.evaluation.inference import fold_checked
from bn_inception.files import write_text
from bn_inception.network.checkpoint import load_network


@dataclass
class ReadingConfig:
    """`data.*`: loader processes, None by the number of cores."""

    workers: int | None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise UserError(f"data.workers: {self.workers} is negative; give 0 or more, or null")


@dataclass
class SubmissionConfig(InferenceConfig):
    """The keys of `configs/submission.yaml`."""

    runs: list[str]
    images: str
    devkit: str | None
    output: str
    data: ReadingConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.run is not None:
            self.runs = [self.run, *self.runs]
        if not self.runs and self.checkpoint is None:
            raise UserError("submission: no network; give run=FOLDER or checkpoint=FILE")


def run(call: Call[SubmissionConfig]) -> int:
    """Write a submission; return 0."""
    config = call.config
    # Everything that can be refused is, before hours of work.
    output = output_file(config.output)
    assert output is not None
    devkit = submission.read_devkit(config.devkit)
    alone = [] if config.checkpoint is None else [Path(config.checkpoint)]
    files = alone + [checkpoint_file(folder, None, config.which) for folder in config.runs]
    device = config.machine.prepare()
    classes = _common_classes(files)
    numbers = submission.class_numbers(classes, devkit)
    source = submission.unlabelled_images(config.images, classes)

    total = np.zeros((len(source), len(classes)), np.float32)
    unreadable: dict[int, str] = {}
    for file in files:
        loaded = load_network(file)
        network = fold_checked(loaded.network.to(device), source, device).network
        backend = preprocessing.backend_of(loaded.preprocessing)
        size = loaded.config.image_size
        result = config.evaluated(network, source, size, device, config.data.workers, backend)
        total += result.probabilities
        unreadable |= result.unreadable
    text = submission.submission(total, numbers)
    submission.check_submission(text, len(source), len(devkit))
    write_text(output, text)
    for index, reason in unreadable.items():
        say(f"warning: {source.name(index)} cannot be read: {reason}")
    models = f"{len(files)} networks, " if len(files) > 1 else ""
    print(
        f"{len(source):,} images, {models}crops={config.crops}; five class ids of 1 to "
        f"{len(devkit)} a line, checked\n{output}"
    )
    return 0


def _common_classes(files: Sequence[Path]) -> tuple[str, ...]:
    names: dict[tuple[str, ...], Path] = {}
    hashes: dict[str, Path] = {}
    for file in files:
        loaded = load_network(file)
        if loaded.sha256 in hashes:
            raise UserError(f"{hashes[loaded.sha256]} and {file}: the same network; give it once")
        if loaded.classes is None:
            raise UserError(
                f"checkpoint {file}: does not name its classes; import it with classes=FILE"
            )
        if names and loaded.classes not in names:
            raise UserError(f"{files[0]} and {file}: trained on different classes")
        hashes[loaded.sha256] = names[loaded.classes] = file
    return next(iter(names))


COMMAND = Command("submission", SubmissionConfig, run, plain="runs")
