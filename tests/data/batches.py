"""Batches as these tests ask for them."""

from collections.abc import Generator
from typing import Any

import torch

from bn_inception.data import (
    AugmentationConfig,
    Backend,
    ImageSource,
    OnError,
    Photometric,
    TrainingBatch,
    TrainingOrder,
    ValidationBatch,
    training_batches,
    validation_batches,
)


def training(
    source: ImageSource,
    steps: tuple[int, int] = (0, 12),
    batch: int = 4,
    seed: int = 3,
    shard: int = 5,
    photometric: Photometric = Photometric.full,
    **more: Any,
) -> Generator[TrainingBatch, None, None]:
    return training_batches(
        source,
        TrainingOrder(len(source), batch, seed, True, shard),
        start_step=steps[0],
        stop_step=steps[1],
        augmentation=AugmentationConfig(photometric),
        seed=seed,
        **{"image_size": 16, "workers": 0, "on_error": OnError.fail, **more},
    )


def validation(
    source: ImageSource,
    workers: int = 0,
    on_error: OnError = OnError.fail,
    batch: int = 4,
    backend: Backend = Backend.pillow,
) -> Generator[ValidationBatch, None, None]:
    return validation_batches(
        source, image_size=16, batch=batch, workers=workers, on_error=on_error, backend=backend
    )


def assert_same(one: Any, other: Any) -> None:
    """The same batches bit for bit, and at least one."""
    count = 0
    for first, second in zip(one, other, strict=True):
        for mine, its in zip(first, second, strict=True):
            assert torch.equal(mine, its) if isinstance(mine, torch.Tensor) else mine == its
        count += 1
    assert count
