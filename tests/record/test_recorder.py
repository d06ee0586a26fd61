import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.util.tensor_util import make_ndarray

from bn_inception.errors import UserError
from bn_inception.record.metrics import TrainRecord, ValidationRecord, read_metrics
from bn_inception.record.recorder import Recorder
from bn_inception.record.run_folder import RunFolder
from bn_inception.record.summary import (
    Best,
    Divergence,
    Milestone,
    RunStatus,
    Summary,
    read_summary,
)

TARGETS = [0.2, 0.4]
HYPERPARAMETERS = {"recipe": "bn_x5", "learning_rate": 0.0075, "dropout": False}


def recorder(folder, state=None, step=0, *, batch=32, targets=TARGETS):
    """Started anew, or resumed at a step from a state."""
    summary = Summary("bn_x5", "cpu", 0)
    made = Recorder(folder, summary, batch=batch, targets=targets, hyperparameters=HYPERPARAMETERS)
    if state is None:
        made.start()
    else:
        made.restore(state, step)
    return made


@pytest.fixture
def folder(tmp_path):
    with RunFolder(tmp_path, "a") as folder:
        folder.create()
        yield folder


def trained(step, *, batch=32, loss=1.0, speed=1.0):
    return TrainRecord(step, step * batch / 32, loss, 0.1, speed, 0.1)


def judged(step, top1=0.5, *, batch=32, loss=1.0):
    return ValidationRecord(step, step * batch / 32, loss, top1, 1.0, 50)


def top1(step):
    """An accuracy curve that rises, and is not monotone."""
    return min(1.0, step / 100) if step % 20 else step / 400


def go(recorder, start, stop, batch=32):
    """Train from after `start` to `stop`: a train record every 5 steps, an evaluation every 10."""
    for step in range(start + 1, stop + 1):
        if step % 5 == 0:
            recorder.train(trained(step, batch=batch, loss=1 / step, speed=100.0))
        if step % 10 == 0:
            recorder.validation(judged(step, top1(step), batch=batch, loss=2 / step))
    return recorder


def load(folder):
    """What TensorBoard's own server keeps of a run after its purges."""
    return EventAccumulator(str(folder), tensor_size_guidance={"scalars": 0}).Reload()


def curve(folder, tag):
    accumulator = load(folder)
    events = accumulator.Tensors(tag) if tag in accumulator.Tags()["tensors"] else []
    return [(each.step, round(float(make_ndarray(each.tensor_proto)), 6)) for each in events]


def test_a_run_from_start_to_finish(folder):
    made = recorder(folder)
    assert read_summary(folder.summary).status is RunStatus.running
    go(made, 0, 50)
    made.summary.replaced_images["n01/a.JPEG"] = "truncated"
    made.finish(RunStatus.finished, step=50)
    summary = read_summary(folder.summary)
    assert (summary.status, summary.step, summary.images_seen) == (RunStatus.finished, 50, 1600)
    assert summary.best == Best(0.5, 50)
    assert summary.milestones == [Milestone(0.2, 30, 20), Milestone(0.4, 50, 40)]
    assert summary.images_per_second == pytest.approx(100.0)
    assert summary.replaced_images == {"n01/a.JPEG": "truncated"}
    assert len(read_metrics(folder.metrics)) == 15


def test_images_per_second_is_total_images_over_total_seconds(folder):
    made = recorder(folder)
    for step, speed in ((10, 100.0), (20, 50.0), (30, float("nan"))):
        made.train(trained(step, speed=speed))
    summary = made.finish(RunStatus.finished, step=30)
    assert summary.images_per_second == pytest.approx(640 / (3.2 + 6.4))


def test_divergence_and_a_dead_start_are_results(folder):
    made = recorder(folder)
    made.started_learning(False)
    assert read_summary(folder.summary).started_learning is False
    made.train(trained(7, loss=float("nan")))
    made.finish(RunStatus.diverged, step=7, diverged=Divergence(7, "3a"))
    summary = read_summary(folder.summary)
    assert (summary.status, summary.diverged) == (RunStatus.diverged, Divergence(7, "3a"))
    assert curve(folder.tensorboard, "loss/train") == []
    assert curve(folder.tensorboard, "learning_rate") == [(7, 0.1)]


@settings(max_examples=15, deadline=None)
@given(
    checkpoint=st.integers(1, 60),
    killed=st.integers(0, 20),
    torn=st.integers(0, 80),
    batch=st.sampled_from([8, 32, 256]),
)
def test_killed_and_resumed_is_the_uninterrupted_run(
    tmp_path_factory, checkpoint, killed, torn, batch
):
    root = tmp_path_factory.mktemp("outputs")
    with RunFolder(root, "whole") as whole, RunFolder(root, "broken") as broken:
        whole.create()
        broken.create()
        go(recorder(whole, batch=batch), 0, 60, batch).finish(RunStatus.finished, step=60)

        first = go(recorder(broken, batch=batch), 0, checkpoint, batch)
        state = json.loads(json.dumps(first.state()))
        durable = broken.metrics.stat().st_size
        go(first, checkpoint, min(60, checkpoint + killed), batch).close()
        content = broken.metrics.read_bytes()
        broken.metrics.write_bytes(content[: max(durable, len(content) - torn)])

        second = recorder(broken, state, checkpoint, batch=batch)
        go(second, checkpoint, 60, batch).finish(RunStatus.finished, step=60)

        assert broken.metrics.read_bytes() == whole.metrics.read_bytes()
        found, expected = read_summary(broken.summary), read_summary(whole.summary)
        assert found.images_per_second == pytest.approx(expected.images_per_second)
        found.images_per_second = expected.images_per_second
        found.wall_seconds = expected.wall_seconds
        assert found == expected
        if batch != 8:  # several steps of 8 images share one rounded x
            for tag in ("loss/train", "accuracy/validation_top1", "accuracy/maximum_top1",
                        "steps_to/20%"):  # fmt: skip
                assert curve(broken.tensorboard, tag) == curve(whole.tensorboard, tag)


def test_a_checkpoint_between_update_and_evaluation_evaluates_once(folder):
    first = recorder(folder)
    first.train(trained(10))
    state = first.state()
    first.validation(judged(10, 0.5))
    first.close()
    second = recorder(folder, state, 10)
    assert (second.last_train_step, second.last_validation_step) == (10, None)
    assert second.validation(judged(10, 0.5))
    second.close()
    assert [record.kind for record in read_metrics(folder.metrics)] == ["train", "validation"]
    assert curve(folder.tensorboard, "accuracy/validation_top1") == [(10, 0.5)]
    assert curve(folder.tensorboard, "loss/train") == [(10, 1.0)]


def test_resuming_with_other_milestones_is_refused(folder):
    first = recorder(folder)
    state = first.state()
    first.close()
    with pytest.raises(UserError, match=r"milestones: \[0\.9\] differ"):
        recorder(folder, state, targets=[0.9])


@pytest.mark.parametrize(("batch", "factor"), [(32, 1), (256, 8)])
def test_every_tag_by_steps_of_32_images(folder, batch, factor):
    go(recorder(folder, batch=batch), 0, 30, batch).close()
    expected = {
        "loss/train": [(5, 0.2), (10, 0.1), (15, 0.066667), (20, 0.05), (25, 0.04), (30, 0.033333)],
        "loss/validation": [(10, 0.2), (20, 0.1), (30, 0.066667)],
        "learning_rate": [(step, 0.1) for step in range(5, 31, 5)],
        "accuracy/train_top1": [(step, 0.1) for step in range(5, 31, 5)],
        "images_per_second": [(step, 100.0) for step in range(5, 31, 5)],
        "accuracy/validation_top1": [(10, 0.1), (20, 0.05), (30, 0.3)],
        "accuracy/validation_top5": [(10, 1.0), (20, 1.0), (30, 1.0)],
        "accuracy/maximum_top1": [(10, 0.1), (20, 0.1), (30, 0.3)],
        "steps_to/20%": [(30, 30 * factor)],
    }
    found = {tag: curve(folder.tensorboard, tag) for tag in expected}
    assert found == {tag: [(factor * x, y) for x, y in points] for tag, points in expected.items()}


def test_hyperparameters_lie_in_the_run_itself(folder):
    first = go(recorder(folder), 0, 10)
    state = first.state()
    first.finish(RunStatus.interrupted, step=10)
    recorder(folder, state, 10).finish(RunStatus.finished, step=10)

    # One run for TensorBoard: no sub-folder with a time in its name.
    names = sorted(path.name for path in folder.tensorboard.iterdir())
    assert names == [f"events.out.tfevents.0000{number}" for number in (0, 1)]
    content = load(folder.tensorboard).summary_metadata
    start = metadata.parse_session_start_info_plugin_data(
        content[metadata.SESSION_START_INFO_TAG].plugin_data.content
    )
    assert start.hparams["recipe"].string_value == "bn_x5"
    assert start.hparams["learning_rate"].number_value == 0.0075
    assert start.hparams["dropout"].bool_value is False


@pytest.mark.parametrize(
    ("images", "recorded", "step", "shown"),
    [(1, 0, 3, 7), (1, 10, 10, 7), (256, 0, 0, 9)],  # drawn anew where a run begins again
)
def test_a_resumed_run_has_one_picture(folder, images, recorded, step, shown):
    first = recorder(folder)
    first.training_batch(np.full((images, 4, 4, 3), 7, np.uint8))
    state = go(first, 0, recorded).state()
    go(first, recorded, 20).close()
    second = recorder(folder, state, step)
    if step == 0:
        second.training_batch(np.full((images, 4, 4, 3), 9, np.uint8))
    second.close()
    (event,) = load(folder.tensorboard).Tensors("training_batch")
    picture = np.asarray(Image.open(io.BytesIO(make_ndarray(event.tensor_proto)[2])))
    assert set(np.unique(picture)) <= {shown, 128}
    assert np.all(picture[4:6] == 128) and np.all(picture[:, 4:6] == 128)
    # Of a large mini-batch 64 images are shown.
    assert picture.shape[0] == (4 if images == 1 else 8 * 6 - 2)
    # What came after the checkpoint is gone.
    assert all(x <= recorded for x, _ in curve(folder.tensorboard, "loss/train"))


def test_a_deleted_mirror_does_not_stop_a_resume(folder):
    first = go(recorder(folder), 0, 10)
    state = first.state()
    first.close()
    for path in folder.tensorboard.iterdir():
        path.unlink()
    recorder(folder, state, 10).close()
    assert curve(folder.tensorboard, "accuracy/validation_top1") == [(10, 0.1)]


def test_without_a_folder_it_knows_as_much_and_writes_nothing(folder, tmp_path):
    before = set(tmp_path.rglob("*"))
    silent = go(recorder(None), 0, 60)
    assert set(tmp_path.rglob("*")) == before
    writes = go(recorder(folder), 0, 60)
    state, theirs = writes.state(), silent.state()
    for each in (state, theirs):
        each["summary"]["wall_seconds"] = each["metrics_lines"] = each["metrics_checksum"] = 0
    assert theirs == state
    silent.restore(state, 60)
    assert silent.finish(RunStatus.finished, step=60).best == writes.summary.best
    writes.close()
