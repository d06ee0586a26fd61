"""Whole runs that diverge, do not start to learn, or cannot read an image."""

import math
import os
import signal

import pytest
import torch
from small_runs import write_images

from bn_inception import UserError
from bn_inception.training import loop
from bn_inception.training.session import Session


@pytest.fixture
def breaking(monkeypatch):
    """Runs break at step 3 and, as on CUDA, do not look at every step."""
    create, update, steps = Session.__init__, loop.train_step, iter(range(1, 100))

    def unwatched(session, *args):
        create(session, *args)
        session.check_every_step = False

    def broken(network, optimizer, images, *args, **more):
        images = images * math.nan if next(steps) == 3 else images
        return update(network, optimizer, images, *args, **more)

    monkeypatch.setattr(Session, "__init__", unwatched)
    monkeypatch.setattr(loop, "train_step", broken)


DUE = ("train.checkpoint_every=4", "train.evaluate_every=4", "train.checkpoint_minutes=1e-9",
       "stop", "bad input")  # fmt: skip
RARE = ("train.log_every=12", "train.checkpoint_every=12", "train.evaluate_every=12")


@pytest.mark.usefixtures("breaking")
@pytest.mark.parametrize("due", DUE)
def test_a_broken_network_is_neither_saved_nor_judged(due, runs, at_call, capsys):
    def unreadable():
        raise UserError("an image cannot be read")

    if due == "bad input":
        at_call(4, unreadable)
        with pytest.raises(UserError, match="cannot be read"):
            runs.train("broken", *RARE, "train.checkpoint_every=2")
        assert runs.state("broken")["step"] == 2
    elif due == "stop":
        at_call(4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert runs.train("broken", *RARE) == 0
    else:
        assert runs.train("broken", *RARE, due) == 0
    summary = runs.summary("broken")
    assert summary["best"] is None
    if due == "bad input":
        assert summary["status"] == "interrupted"
    else:
        assert (summary["status"], summary["diverged"]["step"]) == ("diverged", 3)
        assert "broken: diverged at step 3 in layer loss;" in capsys.readouterr().out
    for file in (runs.folder("broken") / "checkpoints").iterdir():
        weights = runs.state("broken", file.name)["network"].values()
        assert all(value.isfinite().all() for value in weights)


def test_weights_that_an_update_breaks_are_not_saved(runs, monkeypatch):
    """Its loss is finite still."""

    def breaking(network, *args, **more):
        result = update(network, *args, **more)
        torch.nn.init.constant_(next(network.parameters()), math.inf if next(steps) == 3 else 0.1)
        return result

    update, steps = loop.train_step, iter(range(1, 100))
    monkeypatch.setattr(loop, "train_step", breaking)
    assert runs.train("broken", "train.checkpoint_every=1", "train.evaluate_every=9") == 0
    assert runs.summary("broken")["diverged"]["step"] == 3
    assert runs.state("broken")["step"] == 2


def test_bad_input_after_resuming_leaves_what_was_evaluated(runs, at_call):
    def unreadable():
        raise UserError("an image cannot be read")

    at_call(5, unreadable)
    for batches, more in ((3, []), (1, ["run.resume=must"])):
        with pytest.raises(UserError, match="cannot be read"):
            runs.train("read", f"train.population_batches={batches}", *more)
        at_call(1, unreadable)
        assert runs.state("read", "best.pt")["population_batches"] == 3


def test_a_dead_start_is_noticed_and_the_run_goes_on(runs, capsys):
    slow = ("optimizer.learning_rate=1e-9", "train.log_every=6", "train.start_check=6")
    assert runs.train("dead", *slow, "recipe=inception_sigmoid") == 0
    summary = runs.summary("dead")
    assert (summary["status"], summary["started_learning"]) == ("finished", False)
    assert capsys.readouterr().err.count("has not started to learn") == 1


def test_a_network_that_learns_is_not_called_dead(runs):
    longer = ("train.steps=150", "train.start_check=40", "train.evaluate_every=150")
    assert runs.train("alive", *longer, "augmentation.photometric=none") == 0
    summary = runs.summary("alive")
    assert summary["started_learning"] is True
    assert summary["best"]["top1"] > 0.5


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_an_unreadable_image_stops_the_run_or_is_replaced_and_tallied(runs, tmp_path, on_error):
    runs.images = write_images(tmp_path / "broken")
    (runs.images / "train" / "n0001" / "3.JPEG").write_bytes(b"not an image")
    (runs.images / "val" / "n0002" / "1.JPEG").write_bytes(b"")
    if on_error == "fail":
        with pytest.raises(UserError, match=r"n000\d/\d\.JPEG.*data\.on_error=skip"):
            runs.train("read")
        assert runs.summary("read")["status"] == "interrupted"
        return
    assert runs.train("read", "data.on_error=skip") == 0
    summary = runs.summary("read")
    assert list(summary["replaced_images"]) == ["n0001/3.JPEG"]
    assert str(runs.images) not in str(runs.state("read")["recorder"])
    assert summary["unreadable_validation_images"] == 1
    assert all(r["count"] == 15 for r in runs.records("read", "validation"))
