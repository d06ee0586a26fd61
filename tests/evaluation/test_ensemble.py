"""Ensembles against the definition, computed the slow way; what is refused; the command."""

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation.networks import refusal
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bn_inception.cli.main import dispatch, main
from bn_inception.evaluation import ensemble as module
from bn_inception.evaluation.ensemble import ensemble
from bn_inception.evaluation.saved import Errors, prediction_file
from bn_inception.record.predictions import Predictions, ranks, read_predictions, write_predictions

CLASSES = 12


def predictions(
    member: int, *, images: int = 40, sharpness: float = 2.0, **meta: Any
) -> Predictions:
    """A network that is right more often than not, on images that all members share."""
    shared = np.random.default_rng(0)
    labels = shared.integers(0, CLASSES, images)
    scores = shared.normal(size=(images, CLASSES))
    scores += np.random.default_rng(member + 1).normal(size=(images, CLASSES))
    scores[np.arange(images), labels] += 1.0
    probabilities = np.exp(sharpness * scores)
    probabilities /= probabilities.sum(1, keepdims=True)
    described = {
        "crops": "144",
        "statistics": "running",
        "image_size": 32,
        "data": {"fingerprint": "of the images"},
        "classes": [f"n{number}" for number in range(CLASSES)],
        "checkpoint": {"sha256": f"hash {member}"},
    }
    return Predictions(
        np.array([f"n{label}/{image}.JPEG" for image, label in enumerate(labels)]),
        labels,
        probabilities.astype(np.float16),
        described | meta,
    )


def saved(folder: Path, members: list[Predictions]) -> list[Path]:
    paths = [folder / f"{number}.npz" for number in range(len(members))]
    for path, member in zip(paths, members, strict=True):
        write_predictions(path, member)
    return paths


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


def check_every_subset(paths: list[Path], members: list[Predictions]) -> None:
    """Every subset's errors are those of the mean of its members, ties and all."""
    result = ensemble(paths, names(paths))
    numbers = range(len(members))
    expected = [subset for size in numbers for subset in itertools.combinations(numbers, size + 1)]
    assert list(result.subsets) == expected
    for subset, errors in result.subsets.items():
        # Sums of float16 are exact in float64, and order classes as their mean does.
        summed = np.sum([members[m].probabilities.astype(np.float64) for m in subset], 0)
        places = ranks(summed, members[0].labels)
        assert errors == Errors((places > 0).sum(), (places >= 5).sum(), len(members[0]))
    mean = np.mean([member.probabilities.astype(np.float64) for member in members], 0)
    np.testing.assert_array_equal(result.predictions.probabilities, mean.astype(np.float16))


def test_probabilities_below_float16s_least_normal_number(tmp_path: Path) -> None:
    members = [predictions(member, sharpness=12.0) for member in range(4)]
    assert (members[0].probabilities < 2**-14).mean() > 0.5
    check_every_subset(saved(tmp_path, members), members)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(2, 4),
    classes=st.sampled_from([4, 12]),
    unreadable=st.booleans(),
    block=st.sampled_from([1, 4, 256]),
)
def test_ties_and_unreadable_images_whatever_the_block(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    count: int,
    classes: int,
    unreadable: bool,
    block: int,
) -> None:
    """Probabilities of few values: most classes tie with others, in members and in their mean.

    An unreadable image is wrong even where every class is among the first five.
    """
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, 9)
    members = []
    for member in range(count):
        weights = generator.integers(0, 3, (9, classes)).astype(np.float64)
        weights[:, member] += 1  # no row of zeros
        probabilities = (weights / weights.sum(1, keepdims=True)).astype(np.float16)
        if unreadable:
            probabilities[4] = 0
        ids = np.array([f"{image}.png" for image in range(9)])
        members.append(Predictions(ids, labels, probabilities, {"member": member}))
    folder = tmp_path_factory.mktemp("ties")
    assume(len({member.probabilities.tobytes() for member in members}) == count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        check_every_subset(saved(folder, members), members)


def test_what_is_written(tmp_path: Path) -> None:
    paths = saved(tmp_path, [predictions(member) for member in range(3)])
    result = ensemble(paths, names(paths))
    write_predictions(tmp_path / "mean.npz", result.predictions)
    mean = read_predictions(tmp_path / "mean.npz")
    assert mean.meta["members"] == ["0", "1", "2"]
    assert mean.meta["crops"] == "144" and len(mean.meta["checkpoint"]["sha256"]) == 64
    assert mean.meta["classes"][3] == "n3"
    assert "already; give their own" in refusal(ensemble, [*paths, tmp_path / "mean.npz"], "abcd")
    described = json.loads(json.dumps(result.as_dict()))
    alone = [result.subsets[(member,)].rates["top1_error"] for member in range(3)]
    assert result.errors.rates["top1_error"] < min(alone)
    assert (described["models"], described["count"]) == (3, 40)
    assert (described["crops"], described["statistics"]) == ("144", "running")
    assert (described["image_size"], described["data"]) == (32, {"fingerprint": "of the images"})
    assert described["top1_error"] == result.errors.wrong / 40
    low, high = described["top5_interval"]
    assert low < described["top5_error"] < high
    assert [size["subsets"] for size in described["subsets"]] == [3, 3, 1]
    for size in described["subsets"]:
        top1 = [
            e.wrong / 40 for subset, e in result.subsets.items() if len(subset) == size["models"]
        ]
        assert size["best"]["top1_error"] == min(top1)
        assert size["worst"]["top1_error"] == max(top1)
        assert size["mean"]["top1_error"] == pytest.approx(np.mean(top1))
    assert described["subsets"][2]["best"]["members"] == ["0", "1", "2"]
    assert [member["top1_error"] for member in described["members"]] == alone


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"images": 41}, "40 and 41 images"),
        ({"ids": 3}, "image 4 is .* other.JPEG"),
        ({"labels": 5}, "/5.JPEG has the label"),
        ({"probabilities": 6}, "/6.JPEG could be read"),
        ({"classes": [f"m{number}" for number in range(CLASSES)]}, "class 0 is n0 .* m0"),
        ({"crops": "single"}, "crops are 144 .* single"),
        ({"statistics": "population"}, "statistics are running .* population"),
        ({"checkpoint": {"sha256": "hash 0"}}, "one and the same network"),
    ],
)
def test_members_that_do_not_fit_are_refused(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    ((key, value),) = changed.items()
    arrays = {"ids": "other.JPEG", "labels": 11, "probabilities": 0}
    other = predictions(1, **({} if key in arrays else changed))
    if key in arrays:
        getattr(other, key)[value] = arrays[key]
    paths = saved(tmp_path, [predictions(0), other])
    text = refusal(ensemble, paths, names(paths))
    assert re.search(named, text) and all(str(path) in text for path in paths)


def test_the_same_predictions_twice_and_too_few_or_many_members_are_refused(tmp_path: Path) -> None:
    paths = saved(tmp_path, [predictions(0), predictions(0, checkpoint={"sha256": "other"})])
    assert "one and the same network" in refusal(ensemble, paths, names(paths))
    for count in (1, 11):
        said = f"{count} members given; allowed are 2 to 10"
        assert said in refusal(ensemble, paths[:1] * count, names(paths[:1] * count))


def test_a_run_folder_stands_for_its_predictions(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "evaluation").mkdir(parents=True)
    for crops, statistics in (("single", "running"), ("144", "running"), ("144", "population")):
        made = predictions(0, crops=crops, statistics=statistics)
        write_predictions(folder / "evaluation" / f"{crops}-{statistics}.npz", made)
    # The newest of one way, whatever its name.
    write_predictions(folder / "evaluation" / "a.npz", predictions(1, crops="single"))
    os.utime(folder / "evaluation" / "a.npz", (2e9, 2e9))
    assert prediction_file(folder, "single").name == "a.npz"
    assert prediction_file(folder, "144", "population").name == "144-population.npz"
    assert prediction_file(folder / "some.npz") == folder / "some.npz"
    for arguments, words in (
        ([folder], "several ways (crops=144 statistics=population; crops=144"),
        ([folder, "144"], "choose one"),
        ([folder, "10"], "no predictions with crops=10, only crops=144"),
        ([tmp_path], "evaluate run="),
    ):
        assert words in refusal(prediction_file, *arguments)
    (folder / "evaluation" / "broken.npz").write_bytes(b"PK\x03\x04")
    assert "broken.npz: not " in refusal(prediction_file, folder)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for member in range(3):
        Path(f"run{member}/evaluation").mkdir(parents=True)
        write_predictions(f"run{member}/evaluation/144-running.npz", predictions(member))
    assert dispatch(["ensemble", "run0", "run1", "run2", "crops=144", "output=all.npz"]) == 0
    printed = capsys.readouterr().out
    assert "3 models, 40 images, crops=144" in printed and "top-5 error" in printed
    described = json.loads(Path("all.json").read_text())
    assert [member["name"] for member in described["members"]] == ["run0", "run1", "run2"]
    assert len(read_predictions("all.npz")) == 40

    for arguments, word in (
        (["run0", "run0"], "one and the same network"),
        (["run0", "run1", "output=all.json"], "output: all.json"),
        (["run0", "nowhere.npz"], "nowhere.npz"),
        (["run0", "run1", "crops=single"], "no predictions with crops=single"),
        (["run0", "run1", "output=nowhere/all.npz"], "output: nowhere is no folder"),
        (["absent", "run1", "output=nowhere/all.npz"], "output: nowhere is no folder"),
    ):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as caught:
            main(["ensemble", *arguments])
        assert caught.value.code == 2
        line = capsys.readouterr().err
        assert word in line and line.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before
