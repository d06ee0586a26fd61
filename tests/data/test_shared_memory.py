"""Too small a /dev/shm: said before the first worker starts, with sizes and remedies."""

import multiprocessing
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from batches import training, validation
from hypothesis import given
from hypothesis import strategies as st

from bn_inception.data import DataConfig, DataKind, open_sources, parallel
from bn_inception.errors import UserError

MIB = 2**20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")


def status(free: int) -> SimpleNamespace:
    return SimpleNamespace(f_bavail=free // 4096, f_frsize=4096)


def test_the_papers_batch_in_dockers_64_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: status(64 * MIB))
    batch = parallel.batch_bytes(32, 224)
    parallel.require_shared_memory(2, batch)  # 2 x 5 batches of 4.6 MiB
    with pytest.raises(UserError) as caught:
        parallel.require_shared_memory(3, batch)
    message = str(caught.value)
    assert "70 MiB" in message and "64 MiB are free in /dev/shm" in message
    assert "data.workers=2 fits" in message and "data.workers=0" in message
    assert "--shm-size=" in message


@given(
    workers=st.integers(0, 64),
    images=st.integers(1, 512),
    size=st.integers(8, 352),
    processes=st.integers(1, 8),
    share=st.floats(0, 2),
)
def test_what_is_recommended_is_not_refused(
    workers: int, images: int, size: int, processes: int, share: float
) -> None:
    batch = parallel.batch_bytes(images, size)
    assert batch >= images * (3 * size * size + 5 * 4 + 8)
    free = int(share * processes * workers * 5 * batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "statvfs", lambda _: status(free))
        try:
            parallel.require_shared_memory(workers, batch, processes)
        except UserError as error:
            fits = re.search(r"data\.workers=([1-9]\d*) fits", str(error))
            fitting = int(fits[1]) if fits else 0
            assert fitting < workers
            parallel.require_shared_memory(fitting, batch, processes)
            with pytest.raises(UserError):
                parallel.require_shared_memory(fitting + 1, batch, processes)
            docker = re.search(r"--shm-size=(\d+)m", str(error))
            assert docker
            patch.setattr(os, "statvfs", lambda _: status(int(docker[1]) * MIB))
            parallel.require_shared_memory(workers, batch, processes)
        else:
            assert processes * workers * 4 * batch <= free


@pytest.mark.parametrize("made", [training, validation])
def test_no_worker_is_started(
    image_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, made: Callable[..., Any]
) -> None:
    sources = open_sources(DataConfig(DataKind.folder, str(image_folder({"a": 4, "b": 4}))))
    monkeypatch.setattr(os, "statvfs", lambda _: status(4096))
    assert len(list(made(sources.train, workers=0))) > 0
    before = multiprocessing.active_children()
    with pytest.raises(UserError, match=r"data\.workers: 2 need"):
        next(made(sources.train, workers=2))
    assert multiprocessing.active_children() == before
