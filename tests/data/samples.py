"""Small image sets, what `prepare` makes of them, and the batches that these tests ask for."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bn_inception.data import (
    AugmentationConfig,
    DataConfig,
    DataKind,
    OnError,
    Photometric,
    TrainingOrder,
    open_sources,
    training_batches,
    validation_batches,
)
from bn_inception.data.intake.prepare import PrepareConfig, prepare
from bn_inception.errors import UserError

MakeFolder = Callable[..., Path]
"""The fixture `image_folder`."""

WNIDS = ("n01440764", "n01443537", "n15075141")


def photo(seed, size=(48, 40)):
    """A smooth random picture: survives JPEG nearly unchanged."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image, kind="JPEG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def tar_member(name, kind=tarfile.REGTYPE, data=b"", size=None):
    """What stands in a tar file; `size` is what its header claims, if that is another."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, "/etc", len(data) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + data.ljust(-(-len(data) // 512) * 512, b"\0")


def tar_of(files):
    members = files.items() if isinstance(files, dict) else files
    return b"".join(tar_member(name, data=data) for name, data in members) + bytes(10240)


def content(folder):
    """Every file but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def opened(root, kind=DataKind.folder, **settings):
    return open_sources(DataConfig(kind=kind, root=str(root), **settings))


def silent(what, done, total):
    assert 0 <= done <= total


def made(source, target, **settings):
    config = PrepareConfig(str(source), str(target), **{"shard_size": 4, "workers": 0, **settings})
    return prepare(config, lambda line: None, silent)


def shards_of(source, target):
    made(source, target)
    return target


def refused(source, target, **settings):
    """What `prepare` says."""
    with pytest.raises(UserError) as caught:
        made(source, target, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def training(source, steps=(0, 12), seed=3, shard=5, photometric=Photometric.full, **more):
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


def validation(source, workers=0, on_error=OnError.fail, **more):
    given = {"image_size": 16, "batch": 4, "workers": workers, "on_error": on_error, **more}
    return validation_batches(source, **given)


def assert_same(one, other):
    """The same batches bit for bit, and at least one."""
    pairs = list(zip(one, other, strict=True))
    assert pairs
    for first, second in pairs:
        for mine, its in zip(first, second, strict=True):
            assert torch.equal(mine, its) if isinstance(mine, torch.Tensor) else mine == its
