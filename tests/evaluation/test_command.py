"""`bn-inception evaluate`, from the command line to its files."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import TINY, write_images

from bn_inception import UserError
from bn_inception.cli.main import dispatch
from bn_inception.network import checkpoint
from bn_inception.record import read_predictions

CLASSES = 7


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A short run and its images; tests that change a folder copy it."""
    folder = tmp_path_factory.mktemp("trained")
    images = write_images(folder / "images", classes=CLASSES)
    status = dispatch(
        ["train", "recipe=bn_x5", *TINY, f"data.root={images}", f"run.root={folder}",
         "run.name=run"]
    )  # fmt: skip
    assert status == 0
    return folder / "run", images


@pytest.fixture
def run(trained: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(trained[0], tmp_path / "run")


def evaluate(run: Path, *arguments: str) -> None:
    assert dispatch(["evaluate", f"run={run}", "machine.threads=1", *arguments]) == 0


def summary(run: Path, name: str) -> dict:
    return json.loads((run / "evaluation" / f"{name}.json").read_text())


def test_single_crop_gives_the_accuracy_of_training(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(run)
    found = summary(run, "single-population")
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
    assert sorted(path.name for path in (run / "evaluation").iterdir()) == [
        "single-population.classes.csv", "single-population.json", "single-population.npz",
    ]  # fmt: skip


def test_144_crops_leave_predictions_a_curve_and_a_table(run: Path) -> None:
    evaluate(run, "crops=144", "batch_size=50")
    found = summary(run, "144-population")
    predictions = read_predictions(run / "evaluation" / "144-population.npz")
    assert predictions.meta["crops"] == found["crops"] == "144"
    assert predictions.ids[0] == "n0000/0.JPEG"
    assert len(predictions) == 35 and predictions.readable.all()
    assert predictions.meta["classes"] == [f"n{label:04d}" for label in range(CLASSES)]
    assert predictions.meta["checkpoint"] == found["checkpoint"]
    # Saved as float16, which makes ties and turns no order around.
    own = np.take_along_axis(predictions.probabilities, predictions.labels[:, None], 1)
    surely = (predictions.probabilities > own).any(1).sum()
    possibly = ((predictions.probabilities >= own).sum(1) > 1).sum()
    assert surely <= found["wrong"] <= possibly
    curve = found["accuracy_by_crops"]
    assert [row[0] for row in curve] == list(range(1, 145))
    assert curve[-1][1] == pytest.approx(1 - found["top1_error"])
    assert curve[-1][2] == pytest.approx(1 - found["top5_error"])
    # The first crop of the curve is the single crop.
    evaluate(run)
    assert curve[0][1] == pytest.approx(
        1 - summary(run, "single-population")["top1_error"], abs=0.03
    )
    with (run / "evaluation" / "144-population.classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == predictions.meta["classes"]
    assert sum(int(row["images"]) for row in rows) == 35
    assert sum(int(row["wrong"]) for row in rows) == found["wrong"]
    assert sum(int(row["wrong_top5"]) for row in rows) == found["wrong_top5"]
    assert sum(pair["images"] for pair in found["confused"]) <= found["wrong"]
    assert all(pair["label"] != pair["predicted"] for pair in found["confused"])


def test_both_statistics_side_by_side(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(run, "crops=10", "statistics=both", "population_batches=9")
    out = capsys.readouterr().out
    assert "statistics: running\n" in out
    assert "statistics: population (BN Algorithm 2, 9 mini-batches of 8)" in out
    running, population = (
        read_predictions(run / "evaluation" / f"10-{name}.npz")
        for name in ("running", "population")
    )
    assert np.array_equal(running.ids, population.ids)
    # The running statistics of so short a run still stand near their start.
    assert np.abs(running.probabilities - population.probabilities).max() > 0.01
    assert population.meta["population_batches"] == 9
    # The statistics that the checkpoint carries are of 3 mini-batches.
    evaluate(run, "crops=10", f"output={run}/carried.npz")
    assert "statistics: population (BN Algorithm 2, 3 mini-batches of 8)" in capsys.readouterr().out
    carried = read_predictions(run / "carried.npz")
    assert carried.meta["population_batches"] == 3
    assert not np.array_equal(carried.probabilities, population.probabilities)
    evaluate(run, "crops=10", "population_batches=3", f"output={run}/same.npz")
    same = read_predictions(run / "same.npz").probabilities
    assert np.array_equal(carried.probabilities, same)
    # The checkpoint and the run are left as they were.
    again = population.probabilities.copy()
    evaluate(run, "crops=10", "statistics=population", "population_batches=9")
    second = read_predictions(run / "evaluation" / "10-population.npz").probabilities
    assert np.array_equal(again, second)


def test_carried_statistics_are_what_the_mini_batches_give(run: Path) -> None:
    """Also for weights that carry none, as a signal leaves them: these are of the same step."""
    evaluate(run, "which=last")
    carried = read_predictions(run / "evaluation" / "single-population-last.npz")
    file = run / "checkpoints" / "last.pt"
    state = checkpoint.load(file)
    assert state["population_batches"] == 3
    state["population_batches"] = None
    state["network"] |= state["running_statistics"]
    checkpoint.save(state, file.parent, file.name)
    evaluate(run, "which=last")
    taken = read_predictions(run / "evaluation" / "single-population-last.npz")
    assert carried.meta["population_batches"] == taken.meta["population_batches"] == 3
    assert np.allclose(carried.probabilities, taken.probabilities, atol=1e-3)
    evaluate(run, "which=last", "statistics=running")
    running = read_predictions(run / "evaluation" / "single-running-last.npz")
    assert not np.allclose(carried.probabilities, running.probabilities, atol=1e-3)


def test_without_folding_the_same(run: Path) -> None:
    evaluate(run)
    folded = read_predictions(run / "evaluation" / "single-population.npz").probabilities
    evaluate(run, "fold=false", f"output={run}/unfolded.npz")
    unfolded = read_predictions(run / "unfolded.npz").probabilities
    assert np.allclose(folded, unfolded, atol=1e-3)
    assert json.loads((run / "unfolded.json").read_text())["folded"] is False


def test_last_and_a_checkpoint_alone(run: Path, trained: tuple[Path, Path], tmp_path: Path) -> None:
    evaluate(run, "which=last")
    assert summary(run, "single-population-last")["checkpoint"]["step"] == 12
    output = tmp_path / "alone.npz"
    file = run / "checkpoints" / "last.pt"
    status = dispatch(
        ["evaluate", f"checkpoint={file}", f"output={output}", "data=folder",
         f"data.root={trained[1]}", "data.workers=0"]
    )  # fmt: skip
    assert status == 0
    alone = read_predictions(output)
    assert np.array_equal(
        alone.probabilities,
        read_predictions(run / "evaluation" / "single-population-last.npz").probabilities,
    )


def test_moved_images_are_found_with_data_root(
    run: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    moved = shutil.copytree(trained[1], tmp_path / "moved")
    evaluate(run)
    before = read_predictions(run / "evaluation" / "single-population.npz")
    evaluate(run, f"data.root={moved}")
    after = read_predictions(run / "evaluation" / "single-population.npz")
    assert after.meta["data"] == before.meta["data"]
    assert np.array_equal(after.ids, before.ids)


def test_unreadable_images_are_tallied_by_name(
    run: Path, trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = shutil.copytree(trained[1], tmp_path / "broken")
    (broken / "val" / "n0003" / "2.JPEG").write_bytes(b"\xff\xd8 broken")
    evaluate(run, f"data.root={broken}")
    found = summary(run, "single-population")
    assert list(found["unreadable"]) == ["n0003/2.JPEG"]
    assert found["count"] == 35
    assert "n0003/2.JPEG" in capsys.readouterr().err
    predictions = read_predictions(run / "evaluation" / "single-population.npz")
    assert predictions.ids[~predictions.readable].tolist() == ["n0003/2.JPEG"]


def test_another_preprocessing_is_a_warning_that_names_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "checkpoints" / "best.pt"
    evaluate(run)
    assert "warning" not in capsys.readouterr().err
    state = checkpoint.load(file)
    state["preprocessing"]["decoder"] = "Pillow 9.1"
    checkpoint.save(state, file.parent, file.name)
    evaluate(run)
    assert "decoder: Pillow 9.1 in training" in capsys.readouterr().err


def refused(run: Path, *arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        evaluate(run, *arguments)
    assert not (run / "evaluation").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("crops=12",), "choose from single, 10, 144"),
        (("crop=10",), "there is no key crop"),
        (("statistics=both", "output=a.npz"), "one file and statistics=both makes two"),
        (("output=a.txt",), "name of an .npz file"),
        (("output=absent/a.npz",), "absent is no folder"),
        (("batch_size=0",), "batch_size: 0 is not 1 or more"),
        (("data.first_classes=3",), "trained on 7 classes, the data has 3"),
        (("data.root=absent",), "absent does not exist"),
        (("checkpoint=absent.pt",), "there is no such file"),
        (("which=first",), "choose from"),
        (
            ("machine.precision=tf32", "machine.device=cpu"),
            "machine.precision: tf32 is",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    run: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused(run, *arguments)


def test_a_damaged_checkpoint_writes_nothing(run: Path) -> None:
    file = run / "checkpoints" / "best.pt"
    file.write_bytes(file.read_bytes()[:-100])
    assert "damaged" in refused(run)
    file.unlink()
    assert "choose which=last" in refused(run)


def test_other_class_names_are_refused(
    run: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    renamed = shutil.copytree(trained[1], tmp_path / "renamed")
    for split in ("train", "val"):
        (renamed / split / "n0006").rename(renamed / split / "n0009")
    text = refused(run, f"data.root={renamed}")
    assert "class 6 is n0006 in training and n0009 in the data" in text


def test_an_empty_class_is_refused(run: Path, trained: tuple[Path, Path], tmp_path: Path) -> None:
    emptied = shutil.copytree(trained[1], tmp_path / "emptied")
    shutil.rmtree(emptied / "val" / "n0002")
    (emptied / "val" / "n0002").mkdir()
    assert "holds no images" in refused(run, f"data.root={emptied}")


def test_a_diverged_network_leaves_nothing_half_written(run: Path) -> None:
    file = run / "checkpoints" / "best.pt"
    state = checkpoint.load(file)
    state["network"]["classifier.bias"][0] = torch.nan
    checkpoint.save(state, file.parent, file.name)
    assert "not finite" in refused(run)


def test_what_is_missing_is_asked_for(run: Path, tmp_path: Path) -> None:
    file = run / "checkpoints" / "best.pt"
    for arguments, said in (
        ([], "give run=FOLDER or checkpoint=FILE"),
        ([f"run={tmp_path}/absent"], "no such folder"),
        ([f"checkpoint={file}", "output=a.npz"], "data: not given"),
        ([f"checkpoint={file}", "data=synthetic"], "give output=FILE.npz"),
        (["outputs/a"], "outputs/a: evaluate takes key=value only, such as run=outputs/a"),
    ):
        with pytest.raises(UserError, match=said):
            dispatch(["evaluate", *arguments])


def test_population_needs_batch_normalization(trained: tuple[Path, Path], tmp_path: Path) -> None:
    given = ["train", "recipe=inception", *TINY, "train.steps=4", f"data.root={trained[1]}"]
    assert dispatch([*given, f"run.root={tmp_path}", "run.name=plain"]) == 0
    for statistics in ("population", "running", "both"):
        assert "no Batch Normalization" in refused(tmp_path / "plain", f"statistics={statistics}")
    evaluate(tmp_path / "plain")
    assert summary(tmp_path / "plain", "single")["statistics"] is None


def test_population_needs_a_training_run(
    run: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="statistics: population needs"):
        dispatch(
            ["evaluate", f"checkpoint={run}/checkpoints/best.pt", f"output={tmp_path}/a.npz",
             "population_batches=4", "data=folder", f"data.root={trained[1]}"]
        )  # fmt: skip


def test_the_number_format_is_named_and_its_predictions_stand_beside_the_others(run: Path) -> None:
    evaluate(run)
    evaluate(run, "machine.precision=bf16")
    exact, rounded = (
        read_predictions(run / "evaluation" / f"single-population{name}.npz")
        for name in ("", "-bf16")
    )
    assert (exact.meta["precision"], rounded.meta["precision"]) == ("fp32", "bf16")
    # Widths of 4 and 12 steps: a network whose classes lie close together.
    apart = np.abs(exact.probabilities.astype(float) - rounded.probabilities.astype(float))
    assert 0 < apart.mean() < 0.1
    assert summary(run, "single-population-bf16")["precision"] == "bf16"
