"""Several processes train one network: what must equal one process, and what survives a failure.

Processes are forked, except where torchrun itself is on trial. All talk over gloo on loopback.
"""

import functools
import itertools
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import torch
from processes import free_port, run_ranks
from small_runs import TINY, Runs, contents, write_images
from torch.nn.parallel import DistributedDataParallel
from training.conftest import batch, network_of

import bn_inception
from bn_inception import UserError
from bn_inception.cli.main import dispatch
from bn_inception.config import compose, run_config
from bn_inception.data import TrainingOrder, open_sources
from bn_inception.network import (
    Inception,
    Processes,
    initialize,
    population_statistics,
    running_statistics,
    set_statistics,
)
from bn_inception.training.batches import population_inputs
from bn_inception.training.distributed import ALONE, World, _fresh, joined, world_from_environment
from bn_inception.training.learner import Learner, build_optimizer
from bn_inception.training.local_batch import LocalBatch
from bn_inception.training.machine import choose_device
from bn_inception.training.settings import Device, OptimizerConfig
from bn_inception.training.step import train_step

pytestmark = pytest.mark.timeout(600)
CPU = torch.device("cpu")
SHORT = ("train.steps=6", "train.evaluate_every=3", "train.checkpoint_every=2",
         "train.log_every=1")  # fmt: skip
# Dropout, and statistics that differ between ranks: all that a resumed run could get wrong.
PER_RANK = ("batch.synchronized=false",)


@pytest.fixture
def runs(tmp_path, images):
    return Runs(tmp_path / "outputs", images, "recipe=bn_baseline", *SHORT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, images):
    """An undisturbed run of two ranks."""
    root = tmp_path_factory.mktemp("whole")
    runs = Runs(root, images, "recipe=bn_baseline", *SHORT, *PER_RANK)
    assert runs.train_on(2, "whole") == [0, 0]
    return runs


@pytest.fixture
def twin(tmp_path, whole):
    """Runs beside the undisturbed one."""
    return whole.copy("whole", tmp_path / "outputs")


def on_joined_ranks(ranks, action):
    """What `action` returns on each of several connected processes."""

    def on_rank(rank):
        world = world_from_environment()
        with joined(world, CPU, 60):
            return action(world)

    found = run_ranks(ranks, on_rank)
    assert not any(isinstance(each, str) for each in found), found
    return found


def network(per_activation):
    modules = "[5b]" if per_activation else "[]"
    # In float64 the sum's order does not drown what is to be seen.
    return network_of("bn_x5", f"network.per_activation={modules}").double()


def one_update(built, model, part, world):
    """Gradients, running statistics, loss and correct images of one update."""
    images, labels = batch(16)
    optimizer = build_optimizer(built, OptimizerConfig(0.1, 0.0, 0.0, 1.0, 1))
    result = train_step(model, optimizer, images[part].double(), labels[part], 0.05, world)
    gradients = {name: p.grad.numpy() for name, p in built.named_parameters() if p.grad is not None}
    statistics = [value.clone().numpy() for value in running_statistics(built).values()]
    return gradients, statistics, float(result.loss), int(result.correct)


@pytest.mark.parametrize(
    ("ranks", "group", "per_activation"), [(2, 16, True), (4, 8, False)]
)  # fmt: skip
def test_ranks_with_synchronized_statistics_are_one_process(ranks, group, per_activation):
    """Gradients, running statistics and loss; with four ranks two groups, each on two ranks."""
    alone = network(per_activation)
    set_statistics(alone, groups=16 // group)
    expected = one_update(alone, alone, slice(None), ALONE)

    def on_rank(world):
        built = network(per_activation)
        sharers = group * ranks // 16
        set_statistics(built, processes=Processes(world.subgroup(sharers)))
        model = DistributedDataParallel(built, broadcast_buffers=False)
        part = slice(world.rank * 16 // ranks, (world.rank + 1) * 16 // ranks)
        gradients, statistics, loss, correct = one_update(built, model, part, world)
        means = [world.total(torch.from_numpy(s)) / ranks for s in statistics]
        return gradients, [mean.numpy() for mean in means], loss, correct

    for gradients, statistics, loss, correct in on_joined_ranks(ranks, on_rank):
        assert gradients.keys() == expected[0].keys()
        for name, gradient in gradients.items():
            assert gradient == pytest.approx(expected[0][name], rel=1e-9, abs=1e-10), name
        for statistic, other in zip(statistics, expected[1], strict=True):
            assert statistic == pytest.approx(other, rel=1e-11, abs=1e-13)
        assert loss == pytest.approx(expected[2], rel=1e-12)
        assert correct == expected[3]


def test_what_two_ranks_leave(whole):
    validated = whole.records("whole", "validation")
    assert [r["step"] for r in whole.records("whole", "train")] == [1, 2, 3, 4, 5, 6]
    assert [(r["step"], r["count"]) for r in validated] == [(3, 15), (6, 15)]
    summary = whole.summary("whole")
    assert (summary["status"], summary["step"], summary["images_seen"]) == ("finished", 6, 48)
    environment = whole.environment("whole")
    assert (environment["processes"], environment["normalization_group"]) == (2, 4)
    state = whole.state("whole")
    assert not any(name.startswith("module.") for name in state["network"])
    assert state["population_batches"] == 3

    # The accuracy recorded is that of the file saved, judged by one process.
    result, best = whole.judged("whole"), summary["best"]
    (record,) = [r for r in validated if r["step"] == best["step"]]
    assert (result.top1, result.top5, result.count) == (best["top1"], record["top5"], 15)
    assert result.loss == pytest.approx(record["loss"], rel=1e-5)


@pytest.mark.parametrize("ranks", [2, 3])
def test_population_statistics_are_those_of_one_process(images, ranks):
    """Of 5 mini-batches ranks have 3 and 2, or 2, 2 and 1; BN that is synchronized stays out."""
    overrides = [*TINY, f"data.root={images}", "train.population_batches=5", "batch.images=6"]
    config = run_config(compose("train", ["recipe=bn_baseline", *overrides]))
    source = open_sources(config.data).train

    def judged(world):
        built = Inception(config.network, 3)
        initialize(built, torch.Generator().manual_seed(0))
        if world.size > 1:
            set_statistics(built, processes=Processes(None))
        inputs = population_inputs(config, source, CPU, world)
        with closing(inputs):
            found = population_statistics(built.train(), inputs, total=world.total)
        return {name: value.numpy() for name, value in running_statistics(found).items()}

    expected = judged(ALONE)
    for found in on_joined_ranks(ranks, judged):
        for name, value in found.items():
            assert value == pytest.approx(expected[name], rel=1e-6, abs=1e-7), name


def test_an_image_of_the_population_that_one_rank_cannot_read_stops_all(runs, tmp_path):
    """Training does not come to it before the first evaluation: a mini-batch of 8 is one step."""
    runs.images = write_images(tmp_path / "broken")
    short = ("train.steps=1", "train.evaluate_every=1", "train.population_batches=4")
    config = run_config(compose("train", runs.arguments("failing", *short)))
    source = open_sources(config.data).train
    order = TrainingOrder(len(source), 8, 0, True, 1251)
    seen = set(order.batch(0)[1])
    # Of the mini-batches 0 to 3 the second rank reads 1 and 3.
    place = next(index for index in order.batch(3)[1] if index not in seen)
    (runs.images / "train" / source.name(place)).write_bytes(b"not an image")
    said = runs.train_on(2, "failing", *short)
    assert len(set(said)) == 1 and f"{source.name(place)} cannot be read" in said[0]
    assert runs.state("failing")["step"] == 1
    assert runs.train_on(2, "skipping", *short, "data.on_error=skip") == [0, 0]
    assert list(runs.summary("skipping")["replaced_images"]) == [source.identity(place)]


def test_what_is_no_continuation_is_refused_by_every_rank_for_one_reason(whole):
    before = contents(whole.root)
    refused = whole.train_on(2, "whole")
    assert len(set(refused)) == 1
    assert "AgreedError" in refused[0] and "run.resume=must" in refused[0]
    assert contents(whole.root) == before


def fail():
    raise MemoryError("enough")


@pytest.mark.parametrize(("hurried", "saved"), [(0, 3), (1, 2)])
def test_the_first_ranks_clock_decides_for_all_and_a_rank_that_raises_ends_the_others(
    twin, at_call, monkeypatch, hurried, saved
):
    """On one rank a checkpoint is due at every step; by steps they fall on 2, 4 and 6."""

    def on_rank(rank):
        minutes = "1e-9" if rank == hurried else "null"
        return twin.train("clocked", f"train.checkpoint_minutes={minutes}")

    at_call(4, fail, rank=1)
    first, second = run_ranks(2, on_rank)
    monkeypatch.undo()
    assert second == "MemoryError: enough"
    assert first.startswith("UserError: process 0 of 2: lost the others")
    assert twin.summary("clocked")["status"] == "interrupted"
    assert twin.state("clocked")["step"] == saved
    assert twin.train_on(2, "clocked", "run.resume=auto") == [0, 0]
    twin.assert_equal("clocked", "whole")


def test_what_an_earlier_attempt_left_in_the_store_is_not_met():
    """torchrun keeps one store over its restarts."""
    store = torch.distributed.HashStore()

    def come(attempt, size, rank):
        # The first comes last, so that the others meet the name of the attempt before.
        time.sleep(0.1 * (size - rank))
        part = _fresh(store, World(rank, size), 60)
        if rank == 0:
            part.set("number", "left over" if part.check(["number"]) else str(attempt))
        return str(part.get("number").decode())

    for attempt, size in enumerate((2, 3, 2)):
        with ThreadPoolExecutor(size) as pool:
            met = [*pool.map(functools.partial(come, attempt, size), range(size))]
        assert met == [str(attempt)] * size


def test_a_checkpoint_goes_from_one_process_to_two_and_back(runs):
    for ranks, steps in ((1, 2), (2, 4), (1, 6)):
        given = (f"train.steps={steps}", "run.resume=auto")
        assert runs.train_on(ranks, "moved", *given) == [0] * ranks
        assert runs.summary("moved")["step"] == steps
    assert [r["step"] for r in runs.records("moved", "train")] == [1, 2, 3, 4, 5, 6]


def test_processes_that_read_other_images_are_refused(runs, tmp_path):
    other = write_images(tmp_path / "other")
    shutil.copy(other / "val" / "n0001" / "0.JPEG", other / "val" / "n0001" / "more.JPEG")
    roots = [f"data.root={images}" for images in (runs.images, other)]
    command = ["train", *runs.arguments("differing")]
    said = run_ranks(2, lambda rank: dispatch([*command, roots[rank]]))
    assert len(set(said)) == 1 and "process 1 reads other images than process 0" in said[0]
    assert not (runs.folder("differing") / "config.yaml").exists()


def test_divergence_is_one_result(runs):
    given = ("recipe=inception_x5", "optimizer.learning_rate=1e20")
    assert runs.train_on(2, "fast", *given) == [0, 0]
    summary = runs.summary("fast")
    assert summary["status"] == "diverged" and summary["diverged"]["layer"]


def torchrun(options, arguments):
    words = ["-m", "torch.distributed.run", *options, "scripts/train.py", *arguments]
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=Path(bn_inception.__file__).parents[1],
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_torchrun_on_two_machines_of_one_process_each(runs):
    """Two agents on loopback; synchronized statistics. Then a single process reads the same."""
    given = ("recipe=bn_x5", "train.steps=3")
    options = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1",
               f"--master-port={free_port()}"]  # fmt: skip
    agents = [
        torchrun([*options, f"--node-rank={node}"], runs.arguments("nodes", *given))
        for node in range(2)
    ]
    said = [agent.communicate(timeout=500) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert "8 images an update on 2 processes, 4 each" in said[0][1] + said[1][1]
    assert sum("nodes: finished" in out for out, _ in said) == 1
    assert runs.train("alone", *given) == 0
    first, other = runs.records("nodes")[0], runs.records("alone")[0]
    assert first["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert (first["top1"], first["learning_rate"]) == (other["top1"], other["learning_rate"])


def test_torchrun_ends_all_and_names_the_image_that_one_could_not_read(runs, tmp_path):
    runs.images = write_images(tmp_path / "broken", train=3)
    (runs.images / "train" / "n0001" / "1.JPEG").write_bytes(b"not an image")
    options = ["--standalone", "--nproc-per-node=2"]
    agent = torchrun(options, runs.arguments("broken", "recipe=bn_x5"))
    _, said = agent.communicate(timeout=500)
    assert agent.returncode == 1  # torchrun's own status for any failure
    assert "n0001/1.JPEG cannot be read" in said and "Root Cause" in said


def test_dropout_is_a_function_of_seed_step_and_rank():
    drawn = set()
    for seed, step, rank in itertools.product((0, 1), (0, 5), (0, 1)):
        config = run_config(compose("train", ["recipe=inception", *TINY, f"run.seed={seed}"]))
        learner = Learner(config, 3, LocalBatch(4, None, 1, 1), World(rank, 2))
        learner.seed_dropout(step)
        drawn.add(float(torch.rand(1)))
    assert len(drawn) == 8


def test_the_environment_is_read_whole_or_not_at_all(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert world_from_environment() is ALONE
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="RANK"):
        world_from_environment()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 processes on a machine with 1 CUDA device"):
        choose_device(Device.auto, World(0, 2, 0, 2))
