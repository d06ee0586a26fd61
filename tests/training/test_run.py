"""Whole runs through the command, seconds each: what they leave, and what survives a crash."""

import io
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import Runs, contents, write_images
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from bn_inception import UserError
from bn_inception.config import compose, run_config
from bn_inception.data import open_sources, to_input
from bn_inception.network import checkpoint
from bn_inception.training import loop
from bn_inception.training.batches import Batches
from bn_inception.training.distributed import ALONE
from bn_inception.training.local_batch import LocalBatch

BASELINE = ("recipe=bn_baseline", "milestones=[0.2,1.0]")
"""With dropout and BN."""
RESUME = "run.resume=must"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, images):
    """One run of 12 steps, to which the others are held."""
    runs = Runs(tmp_path_factory.mktemp("undisturbed"), images, *BASELINE)
    assert runs.train("whole") == 0
    return runs


@pytest.fixture
def twin(tmp_path, undisturbed):
    """Runs beside the undisturbed one."""
    return undisturbed.copy("whole", tmp_path / "outputs")


def crash():
    raise MemoryError


def send(number):
    return lambda: os.kill(os.getpid(), number)


def test_what_a_run_leaves(undisturbed):
    folder = undisturbed.folder("whole")
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "tensorboard"}
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "best.pt",
        "last.pt",
        "previous.pt",
    ]
    trained, evaluated = (undisturbed.records("whole", kind) for kind in ("train", "validation"))
    assert [r["step"] for r in trained] == [2, 4, 6, 8, 10, 12]
    assert [(r["step"], r["count"]) for r in evaluated] == [(4, 15), (8, 15), (12, 15)]
    assert all(0 <= r["top1"] <= r["top5"] <= 1 for r in evaluated)
    assert all((r["statistics"], r["population_batches"]) == ("population", 3) for r in evaluated)
    summary = undisturbed.summary("whole")
    assert (summary["recipe"], summary["scale"], summary["seed"]) == ("bn_baseline", "demo", 0)
    assert (summary["status"], summary["step"], summary["images_seen"]) == ("finished", 12, 96)
    best = max(evaluated, key=lambda r: (r["top1"], -r["step"]))
    assert summary["best"] == {"top1": best["top1"], "step": best["step"]}
    assert [m["target"] for m in summary["milestones"]] == [0.2, 1.0]
    environment = undisturbed.environment("whole")
    assert environment["data_fingerprint"] and environment["versions"]["torch"]
    for file in ("best.pt", "last.pt"):
        state = undisturbed.state("whole", file)
        assert state["population_batches"] == 3
        name = "rows.conv1.normalization.running_var"
        # 12 steps have moved the running ones by a fifth; they began at 1.
        running = state["running_statistics"][name]
        assert not torch.allclose(state["network"][name], running, rtol=0.2)


def test_the_picture_in_tensorboard_is_what_the_network_was_given(runs):
    assert runs.train("shown", "train.steps=2") == 0
    events = EventAccumulator(str(runs.folder("shown") / "tensorboard")).Reload()
    (event,) = events.Tensors("training_batch")
    with Image.open(io.BytesIO(make_ndarray(event.tensor_proto)[2])) as image:
        grid = np.asarray(image)
    # Eight images of 16 pixels in three rows of three, two pixels between.
    assert event.step == 0 and grid.shape == (3 * 18 - 2, 3 * 18 - 2, 3)
    config = run_config(compose("train", runs.arguments("shown")))
    sources, local = open_sources(config.data), LocalBatch(8, 8, 1, 1)
    batch = next(Batches(config, sources, ALONE, local).training(0, 1, agree=False))
    expected = (to_input(batch.images, batch.factors).permute(0, 2, 3, 1) + 1) * 127.5
    for number, pixels in enumerate(expected.numpy()):
        top, left = number // 3 * 18, number % 3 * 18
        shown = grid[top : top + 16, left : left + 16]
        assert np.abs(shown - pixels).max() <= 0.51
        # The colour of its class stands out: red, green and blue are in their places.
        assert shown.mean((0, 1)).argmax() == batch.labels[number] % 3


def test_the_accuracy_recorded_is_that_of_the_file_saved(undisturbed):
    # Batches of 4 over 15 images: the tail counts, and nothing counts twice.
    for size in (4, 15):
        result = undisturbed.judged("whole", size)
        assert (result.count, result.top1) == (15, undisturbed.summary("whole")["best"]["top1"])


@pytest.mark.parametrize("number", [1, 4, 7, 12])
def test_a_crash_loses_only_what_follows_the_checkpoint(twin, at_call, number):
    """Checkpoints fall on steps 3, 6, 9 and 12: in mid-epoch and inside a log interval."""
    at_call(number, crash)
    with pytest.raises(MemoryError):
        twin.train("crashed")
    assert twin.summary("crashed")["status"] == "interrupted"
    assert twin.train("crashed", RESUME) == 0
    twin.assert_equal("crashed", "whole")


@pytest.mark.parametrize(
    ("number", "during", "call", "stopped_at"),
    [
        (signal.SIGINT, "train_step", 1, 1),
        (signal.SIGHUP, "train_step", 1, 1),
        (signal.SIGTERM, "judged_network", 1, 4),
        (signal.SIGUSR1, "evaluate", 1, 4),
        (signal.SIGTERM, "train_step", 12, 12),  # the last evaluation is left to the resumed run
    ],
)
def test_a_signal_saves_at_once_and_the_run_continues(
    twin, at_call, monkeypatch, number, during, call, stopped_at
):
    at_call(call, send(number), during)
    if during == "judged_network":  # noticed in Algorithm 2 itself, before an image is judged
        monkeypatch.setattr(loop, "evaluate", None)
    assert twin.train("stopped") == 128 + number
    monkeypatch.undo()
    assert twin.summary("stopped")["status"] == "interrupted"
    saved = twin.state("stopped")
    assert saved["step"] == stopped_at
    # Weights that were not judged carry the statistics that they were trained with, and say so.
    assert saved["population_batches"] is None
    assert all(torch.equal(v, saved["network"][k]) for k, v in saved["running_statistics"].items())
    # Saved without validating first, and nothing half-counted.
    assert all(r["step"] < stopped_at for r in twin.records("stopped", "validation"))
    assert twin.train("stopped", "run.resume=auto") == 0
    twin.assert_equal("stopped", "whole")


@pytest.mark.parametrize(
    "evaluated",
    [("train.evaluate_every=1",), ("train.evaluate_every=12", "train.population_batches=7")],
)
def test_evaluations_change_nothing(twin, evaluated):
    """Weights, optimizer and running statistics, with dropout, whatever is judged meanwhile."""
    assert twin.train("judged", *evaluated) == 0
    one, other = twin.state("judged"), twin.state("whole")
    for key in ("running_statistics", "network"):
        for name, tensor in one[key].items():
            if key == "running_statistics" or name not in one["running_statistics"]:
                assert torch.equal(tensor, other[key][name]), name
    momenta = (state["optimizer"]["state"] for state in (one, other))
    for mine, theirs in zip(*(entries.values() for entries in momenta), strict=True):
        assert torch.equal(mine["momentum_buffer"], theirs["momentum_buffer"])
    assert twin.records("judged", "train") == twin.records("whole", "train")


def test_a_network_without_batch_normalization_reads_nothing_more(runs, monkeypatch):
    monkeypatch.setattr(Batches, "population", None)
    assert runs.train("plain", "recipe=inception") == 0
    records = runs.records("plain", "validation")
    assert [(r["statistics"], r["population_batches"]) for r in records] == [(None, None)] * 3
    state = runs.state("plain", "best.pt")
    assert (state["population_batches"], state["running_statistics"]) == (None, {})


@pytest.mark.parametrize(("minutes", "saved"), [("1e-9", 5), ("null", 3)])
def test_checkpoints_by_the_clock_change_nothing(twin, at_call, minutes, saved):
    """Due at every step, or never; crashed at step 5, two steps after the last one by steps."""
    at_call(6, crash)
    clock = f"train.checkpoint_minutes={minutes}"
    with pytest.raises(MemoryError):
        twin.train("clocked", clock)
    assert twin.state("clocked")["step"] == saved
    assert twin.train("clocked", clock, RESUME) == 0
    twin.assert_equal("clocked", "whole")


def test_the_seed_alone_makes_another_run(twin):
    assert twin.train("again", "data.workers=1") == 0
    twin.assert_equal("again", "whole")
    assert twin.train("seed1", "run.seed=1") == 0
    assert twin.records("seed1") != twin.records("whole")


def test_a_run_made_longer_is_the_long_run_and_says_what_changed(twin, capsys):
    short = ("train.steps=8", "train.checkpoint_minutes=60.0")
    for resume in ("run.resume=never", RESUME):  # a finished run resumes to itself
        assert twin.train("longer", *short, resume) == 0
        assert twin.summary("longer")["step"] == 8
    capsys.readouterr()
    assert twin.train("longer", RESUME) == 0
    twin.assert_equal("longer", "whole")
    assert twin.summary("longer")["planned_steps"] == 12
    said = capsys.readouterr().err
    assert "train.steps was 8, is 12 from step 8 on" in said
    assert "train.checkpoint_minutes was 60.0, is 15 from step 8 on" in said
    assert "\n  steps: 12\n" in (twin.folder("longer") / "config.yaml").read_text()
    changed = {"train.checkpoint_minutes": [60.0, 15.0], "train.steps": [8, 12]}
    for _ in range(2):
        assert twin.environment("longer")["changes"] == [{"step": 8, "changed": changed}]
        assert twin.train("longer", RESUME) == 0
        assert "from step" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["run.resume=never"], r"run\.resume=must"),
        (["network.dropout=0.1", "optimizer.momentum=0.5"],
         r"network\.dropout was 0\.4, is 0\.1; optimizer\.momentum was 0\.9, is 0\.5"),
        (["data.root={others}"], r"data\.root: the images differ"),
        (["train.steps=4"], r"train\.steps: 4, but the run has made 12; give more"),
    ],
)  # fmt: skip
def test_what_is_no_continuation_is_refused_and_left_alone(twin, tmp_path, given, message):
    others = write_images(tmp_path / "others", train=15)
    before = contents(twin.folder("whole"))
    with pytest.raises(UserError, match=message):
        twin.train("whole", RESUME, *[override.format(others=others) for override in given])
    assert contents(twin.folder("whole")) == before


def test_resuming_what_is_not_there_is_refused(runs):
    with pytest.raises(UserError, match="no run to resume"):
        runs.train("absent", RESUME)
    assert not runs.root.exists()


@pytest.mark.parametrize("key", ["optimizer", "recorder", "interval", "network"])
def test_a_checkpoint_that_does_not_fit_is_one_line(twin, key):
    folder = twin.folder("whole") / "checkpoints"
    checkpoint.save({**twin.state("whole"), key: {"nothing": 1}}, folder)
    with pytest.raises(UserError, match="the checkpoint does not fit this run"):
        twin.train("whole", RESUME)
