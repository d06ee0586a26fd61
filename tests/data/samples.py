"""Small image sets, what `prepare` makes of them, and the batches that these tests ask for."""

import io
import tarfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bn_inception.data import (
    AugmentationConfig,
    DataConfig,
    DataKind,
    ImageSource,
    OnError,
    Photometric,
    Sources,
    TrainingOrder,
    open_sources,
    training_batches,
    validation_batches,
)
from bn_inception.data.intake.prepare import PrepareConfig, Prepared, prepare
from bn_inception.errors import UserError

MakeFolder = Callable[..., Path]
"""The fixture `image_folder`."""

WNIDS = ("n01440764", "n01443537", "n15075141")


def photo(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A smooth random picture: survives JPEG nearly unchanged."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def tar_member(
    name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", size: int | None = None
) -> bytes:
    """What stands in a tar file; `size` is what its header claims, if that is another."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, "/etc", len(data) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + data.ljust(-(-len(data) // 512) * 512, b"\0")


def tar_of(files: dict[str, bytes] | list[tuple[str, bytes]]) -> bytes:
    members = files.items() if isinstance(files, dict) else files
    return b"".join(tar_member(name, data=data) for name, data in members) + bytes(10240)


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def opened(root: Path, kind: DataKind = DataKind.folder, **settings: object) -> Sources:
    return open_sources(DataConfig(kind=kind, root=str(root), **settings))


def silent(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def made(source: Path, target: Path, **settings: object) -> list[Prepared]:
    config = PrepareConfig(str(source), str(target), **{"shard_size": 4, "workers": 0, **settings})
    return prepare(config, lambda line: None, silent)


def shards_of(source: Path, target: Path) -> Path:
    made(source, target)
    return target


def refused(source: Path, target: Path, **settings: object) -> str:
    """What `prepare` says."""
    with pytest.raises(UserError) as caught:
        made(source, target, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def training(
    source: ImageSource,
    steps: tuple[int, int] = (0, 12),
    seed: int = 3,
    shard: int = 5,
    photometric: Photometric = Photometric.full,
    **more: Any,
) -> Generator[Any, None, None]:
    """Batches of four."""
    return training_batches(
        source,
        TrainingOrder(len(source), 4, seed, True, shard),
        start_step=steps[0],
        stop_step=steps[1],
        augmentation=AugmentationConfig(photometric),
        seed=seed,
        **{"image_size": 16, "workers": 0, "on_error": OnError.fail, **more},
    )


def validation(
    source: ImageSource, workers: int = 0, on_error: OnError = OnError.fail, **more: Any
) -> Generator[Any, None, None]:
    given = {"image_size": 16, "batch": 4, "workers": workers, "on_error": on_error, **more}
    return validation_batches(source, **given)


def assert_same(one: Any, other: Any) -> None:
    """The same batches bit for bit, and at least one."""
    pairs = list(zip(one, other, strict=True))
    assert pairs
    for first, second in pairs:
        for mine, its in zip(first, second, strict=True):
            assert torch.equal(mine, its) if isinstance(mine, torch.Tensor) else mine == its
