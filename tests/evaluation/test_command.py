"""`bn-inception evaluate`, from the command line to its files."""

import json
import shutil

import numpy as np
import pytest
import torch
from evaluation.networks import refusal
from small_runs import TINY, write_images

from bn_inception.cli.main import dispatch
from bn_inception.network import checkpoint
from bn_inception.record.predictions import read_predictions

CLASSES = 7


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run and its images; tests that change a folder copy it."""
    folder = tmp_path_factory.mktemp("trained")
    images = write_images(folder / "images", classes=CLASSES)
    given = [f"data.root={images}", f"run.root={folder}", "run.name=run"]
    assert dispatch(["train", "recipe=bn_x5", *TINY, *given]) == 0
    return folder / "run", images


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained[0], tmp_path / "run")


@pytest.fixture
def images(trained, tmp_path):
    """A copy of the images, to be changed."""
    return shutil.copytree(trained[1], tmp_path / "images")


def evaluate(run, *arguments):
    assert dispatch(["evaluate", f"run={run}", "machine.threads=1", *arguments]) == 0


def predictions(run, name="single-population"):
    return read_predictions(run / "evaluation" / f"{name}.npz")


def summary(run, name="single-population"):
    return json.loads((run / "evaluation" / f"{name}.json").read_text())


def edit(run, change, name="best.pt"):
    """Change a checkpoint of `run`."""
    state = checkpoint.load(run / "checkpoints" / name)
    change(state)
    checkpoint.save(state, run / "checkpoints", name)


def test_single_crop_gives_the_accuracy_of_training(run, capsys):
    evaluate(run)
    found = summary(run)
    best = json.loads((run / "summary.json").read_text())["best"]
    assert found["count"] == 5 * CLASSES
    assert 1 - found["wrong"] / found["count"] == pytest.approx(best["top1"], abs=1e-12)
    assert found["checkpoint"]["step"] == best["step"]
    low, high = found["top1_interval"]
    assert 0 <= low < found["top1_error"] < high <= 1
    out = capsys.readouterr().out
    assert f"{found['wrong']} of 35 images" in out
    assert "logits differ by at most" in out and "images/s" in out
    assert found["folded"] and found["folding_difference"] < 1e-3
    folded = predictions(run).probabilities
    evaluate(run, "fold=false")
    assert np.allclose(folded, predictions(run).probabilities, atol=1e-3)
    assert summary(run)["folded"] is False


def test_144_crops_leave_predictions_and_a_curve(run):
    evaluate(run, "crops=144", "batch_size=50")
    found, made = summary(run, "144-population"), predictions(run, "144-population")
    assert made.meta["crops"] == found["crops"] == "144"
    assert made.ids[0] == "n0000/0.JPEG" and len(made) == 35 and made.readable.all()
    assert made.meta["classes"] == [f"n{label:04d}" for label in range(CLASSES)]
    assert made.meta["checkpoint"] == found["checkpoint"]
    curve = found["accuracy_by_crops"]
    assert [row[0] for row in curve] == list(range(1, 145))
    assert curve[-1][1] == pytest.approx(1 - found["top1_error"])
    assert curve[-1][2] == pytest.approx(1 - found["top5_error"])
    # The first crop of the curve is the single crop.
    evaluate(run)
    assert curve[0][1] == pytest.approx(1 - summary(run)["top1_error"], abs=0.03)
    assert 0 < sum(pair["images"] for pair in found["confused"]) <= found["wrong"]
    assert all(pair["label"] != pair["predicted"] for pair in found["confused"])


def test_both_statistics_side_by_side(run, capsys):
    evaluate(run, "crops=10", "statistics=both", "population_batches=9")
    out = capsys.readouterr().out
    assert "statistics: running\n" in out
    assert "statistics: population (BN Algorithm 2, 9 mini-batches of 8)" in out
    running, population = (predictions(run, f"10-{name}") for name in ("running", "population"))
    assert np.array_equal(running.ids, population.ids)
    # The running statistics of so short a run still stand near their start.
    assert np.abs(running.probabilities - population.probabilities).max() > 0.01
    assert population.meta["population_batches"] == 9


def test_carried_statistics_are_what_the_mini_batches_give(run):
    """Also for weights that carry none, as a signal leaves them: these are of the same step."""
    evaluate(run, "which=last")
    carried = predictions(run, "single-population-last")
    evaluate(run, "which=last", "statistics=running")
    running = predictions(run, "single-running-last")
    assert not np.allclose(carried.probabilities, running.probabilities, atol=1e-3)

    def forget(state):
        assert state["population_batches"] == 3
        state["population_batches"] = None
        state["network"] |= state["running_statistics"]

    edit(run, forget, "last.pt")
    saved = (run / "checkpoints" / "last.pt").read_bytes()
    evaluate(run, "which=last")
    assert (run / "checkpoints" / "last.pt").read_bytes() == saved
    taken = predictions(run, "single-population-last")
    assert carried.meta["population_batches"] == taken.meta["population_batches"] == 3
    assert np.allclose(carried.probabilities, taken.probabilities, atol=1e-3)


def test_last_and_a_checkpoint_alone(run, images):
    evaluate(run, "which=last")
    assert summary(run, "single-population-last")["checkpoint"]["step"] == 12
    given = [f"checkpoint={run}/checkpoints/last.pt", "data=folder", f"data.root={images}"]
    output = f"output={run}/alone.npz"
    assert dispatch(["evaluate", *given, output, "data.workers=0"]) == 0
    alone, of_run = read_predictions(run / "alone.npz"), predictions(run, "single-population-last")
    assert np.array_equal(alone.probabilities, of_run.probabilities)
    text = refusal(dispatch, ["evaluate", *given, output, "population_batches=4"])
    assert "statistics: population needs" in text


def test_moved_images_are_the_same_and_what_differs_is_named(run, images, capsys):
    evaluate(run)
    before = predictions(run)
    evaluate(run, f"data.root={images}")
    after = predictions(run)
    assert after.meta["data"] == before.meta["data"] and np.array_equal(after.ids, before.ids)
    assert capsys.readouterr().err.count("warning") == 0
    (images / "val" / "n0003" / "2.JPEG").write_bytes(b"\xff\xd8 broken")
    edit(run, lambda state: state["preprocessing"].update(decoder="Pillow 9.1"))
    other = f"checkpoint={run}/checkpoints/last.pt"
    for given, said in ((f"data.root={images}", "held-out images"), (other, "network")):
        assert f"not the run's own {said}; give" in refusal(evaluate, run, given)
    evaluate(run, f"data.root={images}", f"output={run}/evaluation/single-population.npz")
    found, made = summary(run), predictions(run)
    assert list(found["unreadable"]) == ["n0003/2.JPEG"] and found["count"] == 35
    assert made.ids[~made.readable].tolist() == ["n0003/2.JPEG"]
    warned = capsys.readouterr().err
    assert "decoder: Pillow 9.1 in training" in warned and "n0003/2.JPEG" in warned


def refused(run, *arguments):
    text = refusal(evaluate, run, *arguments)
    assert not (run / "evaluation").exists()
    return text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run={run} crops=12", "choose from single, 10, 144"),
        ("run={run} crop=10", "there is no key crop"),
        ("run={run} statistics=both output=a.npz", "one file and statistics=both makes two"),
        ("run={run} output=a.txt", "name of an .npz file"),
        ("run={run} output=absent/a.npz", "absent is no folder"),
        ("run={run} batch_size=0", "batch_size: 0 is not 1 or more"),
        ("run={run} data.first_classes=3", "class 3 of 7 is n0003 in training, and none of 3"),
        ("run={run} data.root=absent", "absent does not exist"),
        ("run={run} checkpoint=absent.pt", "there is no such file"),
        ("run={run} which=first", "choose from"),
        ("run={run} machine.precision=tf32 machine.device=cpu", "machine.precision: tf32"),
        ("", "give run=FOLDER or checkpoint=FILE"),
        ("run=absent", "no such folder"),
        ("checkpoint={run}/checkpoints/best.pt output=a.npz", "data: not given"),
        ("checkpoint={run}/checkpoints/best.pt data=synthetic", "give output=FILE.npz"),
        ("outputs/a", "outputs/a: evaluate takes key=value only, such as run=outputs/a"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(trained, line, said):
    assert said in refusal(dispatch, ["evaluate", *line.format(run=trained[0]).split()])
    assert not (trained[0] / "evaluation").exists()


def test_a_checkpoint_that_is_no_network_writes_nothing(run):
    edit(run, lambda state: state["network"]["classifier.bias"].fill_(torch.nan))
    assert "not finite" in refused(run)
    file = run / "checkpoints" / "best.pt"
    file.write_bytes(file.read_bytes()[:-100])
    assert "damaged" in refused(run)
    file.unlink()
    assert "checkpoints/last.pt, in `evaluate` by which=last" in refused(run)


def test_images_of_other_classes_are_refused(run, images):
    for image in (images / "val" / "n0002").iterdir():
        image.unlink()
    assert "holds no images" in refused(run, f"data.root={images}")
    for split in ("train", "val"):
        shutil.rmtree(images / split / "n0002")
        (images / split / "n0006").rename(images / split / "n0009")
        shutil.copytree(images / split / "n0001", images / split / "n0002")
    text = refused(run, f"data.root={images}")
    assert "class 6 of 7 is n0006 in training, and n0009 of 7 in the data" in text


def test_statistics_need_batch_normalization(trained, tmp_path):
    given = ["train", "recipe=inception", *TINY, "train.steps=4", f"data.root={trained[1]}"]
    assert dispatch([*given, f"run.root={tmp_path}", "run.name=plain"]) == 0
    for statistics in ("population", "running", "both"):
        assert "no Batch Normalization" in refused(tmp_path / "plain", f"statistics={statistics}")
    evaluate(tmp_path / "plain")
    assert summary(tmp_path / "plain", "single")["statistics"] is None


def test_the_number_format_is_named_and_its_predictions_stand_beside_the_others(run):
    evaluate(run)
    evaluate(run, "machine.precision=bf16")
    exact, rounded = predictions(run), predictions(run, "single-population-bf16")
    assert (exact.meta["precision"], rounded.meta["precision"]) == ("fp32", "bf16")
    # Widths of 4 and 12 steps: a network whose classes lie close together.
    apart = np.abs(exact.probabilities.astype(float) - rounded.probabilities.astype(float))
    assert 0 < apart.mean() < 0.1
    assert summary(run, "single-population-bf16")["precision"] == "bf16"
