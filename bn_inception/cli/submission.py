"""`bn-inception submission`: the ILSVRC test-server file for a folder of unlabelled images."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bn_inception.cli.command import Call, Command
from bn_inception.cli.export import Which, checkpoint_file
from bn_inception.cli.output import output_file
from bn_inception.errors import UserError
from bn_inception.quoting import printable
from bn_inception.training.settings import ProcessorConfig


@dataclass
class SubmissionConfig:
    """The keys of `configs/submission.yaml`."""

    run: str | None
    runs: list[str]
    checkpoint: str | None
    which: Which
    images: str
    devkit: str | None
    crops: str
    batch_size: int
    workers: int | None
    output: str
    machine: ProcessorConfig

    def __post_init__(self) -> None:
        from bn_inception.evaluation.crops import CropSetting

        settings = [setting.value for setting in CropSetting]
        if self.crops not in settings:
            raise UserError(f"crops: {self.crops!r}; choose from {', '.join(settings)}")
        if self.batch_size < 1:
            raise UserError(f"batch_size: {self.batch_size} is not 1 or more")
        if self.workers is not None and self.workers < 0:
            raise UserError(f"workers: {self.workers} is negative; give 0 or more, or null")
        if not self.folders and self.checkpoint is None:
            raise UserError("submission: no network; give run=FOLDER or checkpoint=FILE")

    @property
    def folders(self) -> list[str]:
        """Every run folder given."""
        return [*([] if self.run is None else [self.run]), *self.runs]

    def checkpoints(self) -> list[Path]:
        """The networks' files."""
        alone = [] if self.checkpoint is None else [Path(self.checkpoint)]
        return alone + [checkpoint_file(folder, self.which) for folder in self.folders]


def run(call: Call[SubmissionConfig]) -> int:
    """Write a submission; return 0."""
    import numpy as np
    import torch

    from bn_inception.data import preprocessing
    from bn_inception.evaluation import submission
    from bn_inception.evaluation.crops import CropSetting
    from bn_inception.evaluation.inference import fold_checked
    from bn_inception.evaluation.multicrop import evaluate_crops
    from bn_inception.network.checkpoint import load_network
    from bn_inception.record.atomic import write_text
    from bn_inception.training.session import choose_device

    config = call.config
    # Everything that can be refused is, before hours of work.
    output = output_file(config.output)
    assert output is not None
    devkit = submission.read_devkit(config.devkit)
    files = config.checkpoints()
    device = choose_device(config.machine.device)
    if config.machine.threads is not None:
        torch.set_num_threads(config.machine.threads)
    classes = _common_classes(files)
    numbers = submission.class_numbers(classes, devkit)
    source = submission.unlabelled_images(config.images, classes)

    total = np.zeros((len(source), len(classes)), np.float32)
    unreadable: dict[int, str] = {}
    for file in files:
        loaded = load_network(file)
        network = loaded.network.to(device)
        result = evaluate_crops(
            fold_checked(network, source, device).network,
            source,
            setting=CropSetting(config.crops),
            image_size=network.config.image_size,
            batch=config.batch_size,
            workers=config.workers,
            device=device,
            backend=preprocessing.backend_of(loaded.preprocessing),
            progress=_progress(file, len(source)),
        )
        total += result.probabilities
        unreadable.update(result.unreadable)
    text = submission.submission(total, numbers)
    submission.check_submission(text, len(source), len(devkit))
    write_text(output, text)
    for index, reason in unreadable.items():
        line = f"warning: {source.name(index)} cannot be read: {reason}"
        print(printable(line), file=sys.stderr)
    models = f"{len(files)} networks, " if len(files) > 1 else ""
    print(
        f"{len(source):,} images, {models}crops={config.crops}; five class ids of 1 to "
        f"{len(devkit)} a line, checked\n{output}"
    )
    return 0


def _common_classes(files: Sequence[Path]) -> tuple[str, ...]:
    from bn_inception.network.checkpoint import load_network

    names: tuple[str, ...] | None = None
    hashes: dict[str, Path] = {}
    for file in files:
        loaded = load_network(file)
        if loaded.sha256 in hashes:
            raise UserError(f"{hashes[loaded.sha256]} and {file}: the same network; give it once")
        hashes[loaded.sha256] = file
        if loaded.classes is None:
            raise UserError(
                f"checkpoint {file}: does not name its classes; import it with classes=FILE"
            )
        if names is not None and loaded.classes != names:
            raise UserError(f"{files[0]} and {file}: trained on different classes")
        names = loaded.classes
    assert names is not None
    return names


def _progress(file: Path, images: int) -> Any:
    from tqdm import tqdm

    bar: Any = tqdm(total=images, unit="image", desc=printable(str(file)), disable=None)

    def update(done: int) -> None:
        bar.update(done - bar.n)
        if done >= images:
            bar.close()

    return update


COMMAND = Command("submission", SubmissionConfig, run, plain="runs")
