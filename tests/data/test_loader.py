"""Batches: the same with any number of workers, whole, honest about bad files, clean to stop."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import assert_same, opened, training, validation

from bn_inception.data import Backend, OnError, Photometric, loader, parallel
from bn_inception.data.order import TrainingOrder
from bn_inception.data.parallel import default_workers
from bn_inception.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and POSIX signals")


@pytest.fixture
def source(image_folder):
    return opened(image_folder({"a": 5, "b": 6})).train


def test_shapes_and_types(source):
    (batch,) = training(source, steps=(0, 1))
    assert batch.images.shape == (4, 3, 16, 16) and batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.factors.shape == (4, 5) and batch.factors.dtype == torch.float32
    assert batch.labels.dtype == torch.int64
    (plain,) = training(source, steps=(0, 1), photometric=Photometric.none)
    assert plain.factors.shape == (4, 0)
    assert torch.equal(plain.images, batch.images)  # distortion takes no draw from the crop


@pytest.mark.parametrize("backend", Backend)
@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(source, workers, backend):
    alone = list(training(source, backend=backend))
    assert len(alone) == 12
    assert_same(alone, training(source, workers=workers, backend=backend))
    assert_same(alone[7:], training(source, (7, 12), workers=workers, backend=backend))
    assert_same(validation(source, backend=backend), validation(source, workers, backend=backend))


def test_validation_is_exact(source):
    batches = list(validation(source))
    assert [len(batch.labels) for batch in batches] == [4, 4, 3]
    assert torch.cat([batch.labels for batch in batches]).tolist() == source.labels.tolist()
    assert all(batch.readable.all() for batch in batches)
    (whole,) = validation(source, batch=11)
    assert torch.equal(torch.cat([batch.images for batch in batches]), whole.images)


REASONS = {3: "empty", 4: "not an image", 7: "No such file", 10: "truncated"}


@pytest.fixture
def damaged(source):
    """Eleven images, some of them damaged for the `REASONS`."""
    for index, data in ((3, b""), (4, b"no image"), (10, source.read(10)[:-100])):
        Path(source.name(index)).write_bytes(data)
    Path(source.name(7)).unlink()
    return source


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_fails_by_name(damaged, workers):
    for batches in (training(damaged, workers=workers), validation(damaged, workers)):
        with pytest.raises(UserError, match=r"data\.on_error=skip") as caught:
            list(batches)
        said = str(caught.value)
        assert "\n" not in said
        assert any(damaged.name(i) in said and reason in said for i, reason in REASONS.items())
    assert damaged.name(3) in said  # the first in order, also with workers
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("backend", Backend)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_replaced_and_reported(source, request, workers, backend):
    whole = list(training(source))
    damaged = request.getfixturevalue("damaged")
    order = TrainingOrder(len(damaged), 4, 3, True, 5)
    stands_in = {3: [3, 4, 5], 4: [4, 5], 7: [7, 8], 10: [10, 0]}
    batches = training(damaged, workers=workers, on_error=OnError.skip, backend=backend)
    for step, batch in zip(range(12), batches, strict=True):
        _, indices = order.batch(step)
        paths = [stands_in.get(int(index), [int(index)]) for index in indices]
        assert batch.labels.tolist() == [int(damaged.labels[path[-1]]) for path in paths]
        passed = [index for path in paths for index in path[:-1]]
        expected = [damaged.identity(index) for index in passed]
        assert [identity for identity, _ in batch.replaced] == expected
        for index, (_, reason) in zip(passed, batch.replaced, strict=True):
            assert REASONS[index] in reason
        assert torch.equal(batch.factors, whole[step].factors)  # the draws are the place's


def test_validation_counts_what_it_cannot_read(damaged):
    batches = list(validation(damaged, 2, OnError.skip))
    readable = torch.cat([batch.readable for batch in batches])
    assert (~readable).nonzero().flatten().tolist() == list(REASONS)
    assert torch.cat([batch.labels for batch in batches]).tolist() == damaged.labels.tolist()
    assert torch.cat([batch.images for batch in batches])[~readable].sum() == 0
    names = [name for batch in batches for name, _ in batch.unreadable]
    assert names == [damaged.name(index) for index in REASONS]


def test_skip_does_not_pass_over_a_lost_disk(source, monkeypatch):
    monkeypatch.setattr(loader, "MAX_SKIPPED", 3)
    for index in range(8):
        Path(source.name(index)).unlink()
    with pytest.raises(UserError, match="3 images in a row cannot be read"):
        list(training(source, on_error=OnError.skip))


def test_an_abandoned_iterator_leaves_no_process(source):
    batches = training(source, steps=(0, 100_000), workers=2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


def test_workers_ignore_the_signals_of_the_group(source):
    batches = training(source, steps=(0, 60), workers=2)
    next(batches)
    for worker in multiprocessing.active_children():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(worker.pid, number)
    assert len(list(batches)) == 59


def test_a_program_that_forgets_its_batches_ends(image_folder):
    forgets = (
        "import sys; from pathlib import Path; from samples import opened, training\n"
        "batches = training(opened(Path(sys.argv[1])).train, (0, 100_000), workers=2)\n"
        "next(batches); print('the end')"
    )
    path = os.pathsep.join(map(str, (Path(__file__).parents[2], Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, "-c", forgets, str(image_folder({"a": 5, "b": 6}))],
        capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("the end\n", 0), done.stderr


def test_torchs_global_generator_is_left_alone(source):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for workers in (0, 1):
        list(training(source, steps=(0, 2), workers=workers))
        list(validation(source, workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("cores", "quota", "workers"),
    [
        *((1, "", [0]), (2, "", [1, 0, 0, 0]), (4, "", [3, 1]), (7, "", [6, 2])),
        *((9, "", [8]), (128, "", [16]), (64, "", [16, 16, 16, 15, 11, 9, 8, 7])),
        # a container with fewer cores
        *((8, "300000 100000", [2]), (8, "max 100000", [7]), (8, "50000 100000", [0])),
    ],
)
def test_default_workers(monkeypatch, tmp_path, cores, quota, workers):
    """Of as many processes as there are numbers in `workers`, and of fewer."""
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(parallel, "_CPU_QUOTA", str(tmp_path / "cpu.max"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert [default_workers(1 + others) for others in range(len(workers))] == workers


def status(free):
    return SimpleNamespace(f_bavail=free // 4096, f_frsize=4096)


def test_the_papers_batch_in_dockers_64_megabytes(monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _: status(64 * 2**20))
    batch = parallel.batch_bytes(32, 224)
    assert batch >= 32 * (3 * 224 * 224 + 5 * 4 + 8)
    parallel.require_shared_memory(2, batch)  # 2 x 5 batches of 4.6 MiB
    said = (
        "70 MiB .* 64 MiB are free in /dev/shm; data.workers=2 fits, data.workers=0 .*--shm-size="
    )
    with pytest.raises(UserError, match=said):
        parallel.require_shared_memory(3, batch)


@given(
    workers=st.integers(0, 64),
    images=st.integers(1, 512),
    processes=st.integers(1, 8),
    share=st.floats(0, 2),
)
def test_what_is_recommended_is_not_refused(workers, images, processes, share):
    batch = parallel.batch_bytes(images, 224)

    def refusal(workers, free):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "statvfs", lambda _: status(free))
            try:
                parallel.require_shared_memory(workers, batch, processes)
            except UserError as error:
                return str(error)
        return ""

    free = int(share * processes * workers * 5 * batch)
    said = refusal(workers, free)
    if not said:
        assert processes * workers * 4 * batch <= free
        return
    fits = re.search(r"data\.workers=([1-9]\d*) fits", said)
    fitting = int(fits[1]) if fits else 0
    assert fitting < workers and not refusal(fitting, free) and refusal(fitting + 1, free)
    docker = re.search(r"--shm-size=(\d+)m", said)
    assert docker and not refusal(workers, int(docker[1]) * 2**20)


@pytest.mark.parametrize("made", [training, validation])
def test_no_worker_is_started_in_too_small_a_dev_shm(source, monkeypatch, made):
    monkeypatch.setattr(os, "statvfs", lambda _: status(4096))
    assert len(list(made(source, workers=0))) > 0
    with pytest.raises(UserError, match=r"data\.workers: 2 need"):
        next(made(source, workers=2))
    assert multiprocessing.active_children() == []
