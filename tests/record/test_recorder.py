import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata
from tensorboard.util.tensor_util import make_ndarray

from bn_inception.errors import UserError
from bn_inception.record import (
    Best,
    Divergence,
    Recorder,
    RunFolder,
    RunStatus,
    Summary,
    read_metrics,
    read_summary,
)

TARGETS = [0.2, 0.4]


def recorder(folder, batch=32, targets=TARGETS):
    return Recorder(
        folder,
        Summary("bn_x5", "cpu", 0),
        batch=batch,
        targets=targets,
        hyperparameters={"recipe": "bn_x5", "learning_rate": 0.0075, "dropout": False},
    )


@pytest.fixture
def folder(tmp_path):
    with RunFolder(tmp_path, "a") as folder:
        folder.create()
        yield folder


def top1(step):
    """An accuracy curve that rises, and is not monotone."""
    return min(1.0, step / 100) if step % 20 else step / 400


def go(recorder, start, stop):
    """Train from after `start` to `stop`: a train record every 5 steps, an evaluation every 10."""
    for step in range(start + 1, stop + 1):
        if step % 5 == 0:
            recorder.train(
                step, loss=1 / step, learning_rate=0.1, images_per_second=100.0, top1=0.1
            )
        if step % 10 == 0:
            recorder.validation(step, loss=2 / step, top1=top1(step), top5=1.0, count=50)


def load(folder):
    """What TensorBoard's own server keeps of a run after its purges."""
    accumulator = EventAccumulator(str(folder), tensor_size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def curve(folder, tag):
    accumulator = load(folder)
    if tag not in accumulator.Tags()["tensors"]:
        return []
    return [
        (event.step, round(float(make_ndarray(event.tensor_proto)), 6))
        for event in accumulator.Tensors(tag)
    ]


def test_a_run_from_start_to_finish(folder):
    with_recorder = recorder(folder)
    with_recorder.start()
    assert read_summary(folder.summary).status is RunStatus.running
    go(with_recorder, 0, 50)
    with_recorder.replaced([("n01/a.JPEG", "truncated")])
    with_recorder.finish(RunStatus.finished, step=50)
    summary = read_summary(folder.summary)
    assert summary.status is RunStatus.finished
    assert (summary.step, summary.images_seen) == (50, 1600)
    assert summary.best == Best(0.5, 50)
    assert [(m.target, m.step, m.previous_step) for m in summary.milestones] == [
        (0.2, 30, 20),
        (0.4, 50, 40),
    ]
    assert summary.images_per_second == pytest.approx(100.0)
    assert summary.replaced_images == {"n01/a.JPEG": "truncated"}
    assert len(read_metrics(folder.metrics)) == 15


def test_only_a_strictly_higher_accuracy_is_a_new_best(folder):
    with_recorder = recorder(folder)
    with_recorder.start()
    answers = [
        with_recorder.validation(step, loss=1.0, top1=accuracy, top5=1.0, count=10)
        for step, accuracy in ((1, 0.0), (2, 0.5), (3, 0.5), (4, 0.4), (5, 0.6))
    ]
    assert answers == [True, True, False, False, True]
    with_recorder.close()


def test_images_per_second_is_total_images_over_total_seconds(folder):
    with_recorder = recorder(folder)
    with_recorder.start()
    for step, speed in ((10, 100.0), (20, 50.0), (30, float("nan"))):
        with_recorder.train(step, loss=1.0, learning_rate=0.1, images_per_second=speed)
    summary = with_recorder.finish(RunStatus.finished, step=30)
    assert summary.images_per_second == pytest.approx(640 / (3.2 + 6.4))


def test_divergence_and_a_dead_start_are_results(folder):
    with_recorder = recorder(folder)
    with_recorder.start()
    with_recorder.started_learning(False)
    assert read_summary(folder.summary).started_learning is False
    with_recorder.train(7, loss=float("nan"), learning_rate=0.1, images_per_second=1.0)
    with_recorder.finish(RunStatus.diverged, step=7, diverged=Divergence(7, "3a"))
    summary = read_summary(folder.summary)
    assert summary.status is RunStatus.diverged
    assert summary.diverged == Divergence(7, "3a")
    assert curve(folder.tensorboard, "loss/train") == []
    assert curve(folder.tensorboard, "learning_rate") == [(7, 0.1)]


def test_divergence_without_a_place_is_a_programming_error(folder):
    with_recorder = recorder(folder)
    with_recorder.start()
    with pytest.raises(ValueError, match="diverged"):
        with_recorder.finish(RunStatus.diverged, step=7)
    with_recorder.close()


@settings(max_examples=25, deadline=None)
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
        uninterrupted = recorder(whole, batch)
        uninterrupted.start()
        go(uninterrupted, 0, 60)
        uninterrupted.finish(RunStatus.finished, step=60)

        broken.create()
        first = recorder(broken, batch)
        first.start()
        go(first, 0, checkpoint)
        state = json.loads(json.dumps(first.state()))
        durable = broken.metrics.stat().st_size
        go(first, checkpoint, min(60, checkpoint + killed))
        first.close()
        content = broken.metrics.read_bytes()
        broken.metrics.write_bytes(content[: max(durable, len(content) - torn)])

        second = recorder(broken, batch)
        second.restore(state, checkpoint)
        go(second, checkpoint, 60)
        second.finish(RunStatus.finished, step=60)

        assert broken.metrics.read_bytes() == whole.metrics.read_bytes()
        resumed, expected = read_summary(broken.summary), read_summary(whole.summary)
        assert resumed.images_per_second == pytest.approx(expected.images_per_second)
        resumed.images_per_second = expected.images_per_second
        resumed.wall_seconds = expected.wall_seconds
        assert resumed == expected
        for tag in (
            "loss/train",
            "accuracy/validation_top1",
            "accuracy/maximum_top1",
            "steps_to/20%",
        ):
            assert curve(broken.tensorboard, tag) == curve(whole.tensorboard, tag)
            if batch == 256:  # several steps of 8 images share one rounded x
                assert curve(broken.tensorboard / "equivalent_steps", tag) == curve(
                    whole.tensorboard / "equivalent_steps", tag
                )


def test_the_best_is_not_forgotten_by_a_resume(folder):
    first = recorder(folder)
    first.start()
    first.validation(10, loss=1.0, top1=0.5, top5=1.0, count=10)
    state = first.state()
    first.finish(RunStatus.interrupted, step=12)
    second = recorder(folder)
    second.restore(state, 12)
    assert read_summary(folder.summary).status is RunStatus.running
    assert second.last_validation_step == 10
    assert not second.validation(20, loss=1.0, top1=0.4, top5=1.0, count=10)
    assert second.finish(RunStatus.finished, step=20).best == Best(0.5, 10)


def test_a_checkpoint_between_update_and_evaluation_evaluates_once(folder):
    first = recorder(folder)
    first.start()
    first.train(10, loss=1.0, learning_rate=0.1, images_per_second=1.0)
    state = first.state()
    first.validation(10, loss=1.0, top1=0.5, top5=1.0, count=10)
    first.close()
    second = recorder(folder)
    second.restore(state, 10)
    assert second.last_train_step == 10
    assert second.last_validation_step is None
    assert second.validation(10, loss=1.0, top1=0.5, top5=1.0, count=10)
    second.close()
    assert [record.kind for record in read_metrics(folder.metrics)] == ["train", "validation"]
    assert curve(folder.tensorboard, "accuracy/validation_top1") == [(10, 0.5)]
    assert curve(folder.tensorboard, "loss/train") == [(10, 1.0)]


def test_resuming_with_other_milestones_is_refused(folder):
    first = recorder(folder)
    first.start()
    state = first.state()
    first.close()
    with pytest.raises(UserError, match=r"milestones: \[0\.9\] differ"):
        recorder(folder, targets=[0.9]).restore(state, 0)


def test_every_tag_by_step(folder):
    with_recorder = recorder(folder)
    with_recorder.start()
    go(with_recorder, 0, 20)
    with_recorder.finish(RunStatus.finished, step=20)
    assert curve(folder.tensorboard, "loss/train") == [
        (5, 0.2),
        (10, 0.1),
        (15, 0.066667),
        (20, 0.05),
    ]
    assert curve(folder.tensorboard, "loss/validation") == [(10, 0.2), (20, 0.1)]
    assert curve(folder.tensorboard, "learning_rate")[0] == (5, 0.1)
    assert curve(folder.tensorboard, "accuracy/train_top1")[0] == (5, 0.1)
    assert curve(folder.tensorboard, "accuracy/validation_top1") == [(10, 0.1), (20, 0.05)]
    assert curve(folder.tensorboard, "accuracy/validation_top5")[0] == (10, 1.0)
    assert curve(folder.tensorboard, "accuracy/maximum_top1") == [(10, 0.1), (20, 0.1)]
    assert curve(folder.tensorboard, "images_per_second")[0] == (5, 100.0)
    # With the paper's mini-batch both axes are one.
    assert not (folder.tensorboard / "equivalent_steps").exists()


def test_a_larger_batch_is_mirrored_by_images_seen_too(folder):
    with_recorder = recorder(folder, batch=256)
    with_recorder.start()
    go(with_recorder, 0, 20)
    with_recorder.finish(RunStatus.finished, step=20)
    assert [x for x, _ in curve(folder.tensorboard, "loss/validation")] == [10, 20]
    equivalent = curve(folder.tensorboard / "equivalent_steps", "loss/validation")
    assert [x for x, _ in equivalent] == [80, 160]


def test_hyperparameters_lie_in_the_run_itself(folder):
    first = recorder(folder)
    first.start()
    go(first, 0, 10)
    state = first.state()
    first.finish(RunStatus.interrupted, step=10)
    second = recorder(folder)
    second.restore(state, 10)
    second.finish(RunStatus.finished, step=10)

    # One run for TensorBoard: no sub-folder with a time in its name.
    assert {path.name for path in folder.tensorboard.iterdir()} == {
        "events.out.tfevents.00000",
        "events.out.tfevents.00001",
    }
    content = load(folder.tensorboard).summary_metadata
    start = metadata.parse_session_start_info_plugin_data(
        content[metadata.SESSION_START_INFO_TAG].plugin_data.content
    )
    assert start.hparams["recipe"].string_value == "bn_x5"
    assert start.hparams["learning_rate"].number_value == 0.0075
    assert start.hparams["dropout"].bool_value is False
    experiment = metadata.parse_experiment_plugin_data(
        content[metadata.EXPERIMENT_TAG].plugin_data.content
    )
    assert [info.name.tag for info in experiment.metric_infos] == [
        "accuracy/maximum_top1",
        "steps_to/20%",
        "steps_to/40%",
    ]
    end = metadata.parse_session_end_info_plugin_data(
        content[metadata.SESSION_END_INFO_TAG].plugin_data.content
    )
    assert end.status == 1  # success, of the session that finished


def test_milestones_are_points_of_their_own(folder):
    with_recorder = recorder(folder)
    with_recorder.start()
    go(with_recorder, 0, 60)
    with_recorder.finish(RunStatus.finished, step=60)
    assert curve(folder.tensorboard, "steps_to/20%") == [(30, 30)]
    assert curve(folder.tensorboard, "steps_to/40%") == [(50, 50)]


def test_milestones_count_images_on_the_axis_of_images(folder):
    with_recorder = recorder(folder, batch=256)
    with_recorder.start()
    go(with_recorder, 0, 60)
    with_recorder.finish(RunStatus.finished, step=60)
    assert curve(folder.tensorboard, "steps_to/20%") == [(30, 30)]
    assert curve(folder.tensorboard / "equivalent_steps", "steps_to/20%") == [(240, 240)]


def layout(folder):
    (event,) = load(folder).Tensors("custom_scalars__config__")[-1:]
    return layout_pb2.Layout.FromString(make_ndarray(event.tensor_proto).item())


def test_the_custom_scalars_page_has_figure_2_and_the_learning_rates(folder):
    with_recorder = recorder(folder)
    with_recorder.start()
    go(with_recorder, 0, 10)
    with_recorder.finish(RunStatus.finished, step=10)
    found = layout(folder.tensorboard)
    assert [category.title for category in found.category] == ["Figure 2", "Learning rate"]
    tags = load(folder.tensorboard).Tags()["tensors"]
    for category in found.category:
        (pattern,) = category.chart[0].multiline.tag
        # As TensorBoard does: a match from the beginning of the tag on.
        assert len([tag for tag in tags if re.match(pattern, tag)]) == 1


def first_batch(folder):
    (event,) = load(folder).Tensors("training_batch")
    width, height, png = make_ndarray(event.tensor_proto)
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (int(width), int(height))
        return event.step, np.asarray(image)


def test_the_first_mini_batch_is_one_picture(folder):
    with_recorder = recorder(folder)
    with_recorder.start()
    pixels = np.zeros((5, 4, 6, 3), np.uint8)
    for number in range(5):
        pixels[number] = (10 * number, 255, 1)
    with_recorder.training_batch(pixels)
    go(with_recorder, 0, 10)
    with_recorder.finish(RunStatus.finished, step=10)
    step, grid = first_batch(folder.tensorboard)
    assert step == 0
    # Two rows of three, two grey pixels between, and the sixth place empty.
    assert grid.shape == (4 + 2 + 4, 6 + 2 + 6 + 2 + 6, 3)
    assert (grid[:4, 8:14] == pixels[1]).all()
    assert (grid[6:, 8:14] == pixels[4]).all()
    assert (grid[4:6] == 128).all()
    assert (grid[6:, 16:] == 128).all()


def test_a_large_mini_batch_is_shown_in_part(folder):
    with_recorder = recorder(folder)
    with_recorder.start()
    with_recorder.training_batch(np.zeros((256, 4, 4, 3), np.uint8))
    with_recorder.close()
    assert first_batch(folder.tensorboard)[1].shape == (8 * 6 - 2, 8 * 6 - 2, 3)


@pytest.mark.parametrize("recorded", [0, 10])
def test_a_resumed_run_keeps_the_picture(folder, recorded):
    first = recorder(folder)
    first.start()
    first.training_batch(np.full((1, 4, 4, 3), 7, np.uint8))
    go(first, 0, recorded)
    state = first.state()
    go(first, recorded, 20)
    first.close()
    second = recorder(folder)
    second.restore(state, recorded or 3)
    second.close()
    assert (first_batch(folder.tensorboard)[1] == 7).all()
    # What came after the checkpoint is gone.
    assert all(x <= recorded for x, _ in curve(folder.tensorboard, "loss/train"))


def test_a_run_that_begins_again_at_step_0_has_its_new_picture_alone(folder):
    first = recorder(folder)
    first.start()
    state = first.state()
    first.training_batch(np.zeros((1, 4, 4, 3), np.uint8))
    first.close()
    second = recorder(folder)
    second.restore(state, 0)
    second.training_batch(np.full((1, 4, 4, 3), 9, np.uint8))
    second.close()
    assert (first_batch(folder.tensorboard)[1] == 9).all()


def test_a_deleted_mirror_does_not_stop_a_resume(folder):
    first = recorder(folder)
    first.start()
    go(first, 0, 10)
    state = first.state()
    first.close()
    for path in folder.tensorboard.iterdir():
        path.unlink()
    second = recorder(folder)
    second.restore(state, 10)
    second.close()
    assert curve(folder.tensorboard, "accuracy/validation_top1") == [(10, 0.1)]


def test_recording_needs_neither_torch_nor_tensorflow(tmp_path):
    program = (
        "import sys\n"
        "from bn_inception.record import *\n"
        "folder = RunFolder(sys.argv[1], 'a'); folder.create()\n"
        "r = Recorder(folder, Summary('bn_x5', 'cpu', 0), batch=32); r.start()\n"
        "r.validation(1, loss=1.0, top1=0.5, top5=1.0, count=2)\n"
        "r.finish(RunStatus.finished, step=1)\n"
        "sys.exit('torch' in sys.modules or 'tensorflow' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
