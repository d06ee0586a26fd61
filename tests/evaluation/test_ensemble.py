"""Saved predictions put together and compared: ensembles, intervals, paired tests, commands."""

import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from evaluation.networks import refusal
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bn_inception.cli.main import dispatch
from bn_inception.evaluation import ensemble as module
from bn_inception.evaluation.ensemble import ensemble
from bn_inception.evaluation.saved import (
    Errors,
    paired_differences,
    prediction_file,
    wilson_interval,
)
from bn_inception.record.predictions import Predictions, read_predictions, write_predictions

CLASSES = 12


def predictions(member, *, images=40, **meta):
    """A network that is right more often than not, on images that all members share."""
    shared = np.random.default_rng(0)
    labels = shared.integers(0, CLASSES, images)
    scores = shared.normal(size=(images, CLASSES))
    scores += np.random.default_rng(member + 1).normal(size=(images, CLASSES))
    scores[np.arange(images), labels] += 1.0
    probabilities = np.exp(2 * scores)
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


def saved(folder, members):
    paths = [folder / f"{number}.npz" for number in range(len(members))]
    for path, member in zip(paths, members, strict=True):
        write_predictions(path, member)
    return paths


def names(paths):
    return [path.stem for path in paths]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(2, 4),
    classes=st.sampled_from([4, 12]),
    unreadable=st.booleans(),
    block=st.sampled_from([1, 4, 256]),
)
def test_every_subset_is_judged_by_the_mean_of_its_members_whatever_the_block(
    tmp_path_factory, seed, count, classes, unreadable, block
):
    """Probabilities of few values: most classes tie with others, in members and in their mean.

    An unreadable image is wrong even where every class is among the first five.
    """
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, 9)
    ids = np.array([f"{image}.png" for image in range(9)])
    members = []
    for member in range(count):
        weights = generator.integers(0, 3, (9, classes)).astype(np.float64)
        weights[:, member] += 1  # no row of zeros
        probabilities = (weights / weights.sum(1, keepdims=True)).astype(np.float16)
        if unreadable:
            probabilities[4] = 0
        members.append(Predictions(ids, labels, probabilities, {"member": member}))
    assume(len({member.probabilities.tobytes() for member in members}) == count)
    paths = saved(tmp_path_factory.mktemp("ties"), members)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        result = ensemble(paths, names(paths))
    numbers = range(count)
    expected = [subset for size in numbers for subset in itertools.combinations(numbers, size + 1)]
    assert list(result.subsets) == expected
    for subset, errors in result.subsets.items():
        # Sums of float16 are exact in float64, and order classes as their mean does.
        summed = np.sum([members[m].probabilities.astype(np.float64) for m in subset], 0)
        order = np.argsort(-summed, axis=1, kind="stable")
        places = np.argmax(order == labels[:, None], axis=1)
        places[~summed.any(1)] = classes + 5
        assert errors == Errors((places > 0).sum(), (places >= 5).sum(), 9)
    mean = np.mean([member.probabilities.astype(np.float64) for member in members], 0)
    np.testing.assert_array_equal(result.predictions.probabilities, mean.astype(np.float16))


def test_what_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = ["run0", "run1", "run2"]
    for member, run in enumerate(runs):
        Path(run, "evaluation").mkdir(parents=True)
        write_predictions(f"{run}/evaluation/144-running.npz", predictions(member))
    assert dispatch(["ensemble", *runs, "crops=144", "output=all.npz"]) == 0
    printed = capsys.readouterr().out
    assert "3 models, 40 images, crops=144" in printed and "top-5 error" in printed
    mean = read_predictions("all.npz")
    assert len(mean) == 40 and mean.meta["members"] == runs
    assert dispatch(["ensemble", *[f"{run}/evaluation/144-running.npz" for run in runs]]) == 0
    assert "run2/144-running" in capsys.readouterr().out
    assert mean.meta["crops"] == "144" and len(mean.meta["checkpoint"]["sha256"]) == 64
    assert mean.meta["classes"][3] == "n3"
    described = json.loads(Path("all.json").read_text())
    assert (described["models"], described["count"]) == (3, 40)
    assert (described["crops"], described["statistics"]) == ("144", "running")
    assert (described["image_size"], described["data"]) == (32, {"fingerprint": "of the images"})
    assert described["top1_error"] == described["wrong"] / 40
    low, high = described["top5_interval"]
    assert low < described["top5_error"] < high
    alone = [member["top1_error"] for member in described["members"]]
    assert [member["name"] for member in described["members"]] == runs
    single, pair, whole = described["subsets"]
    assert [size["subsets"] for size in (single, pair, whole)] == [3, 3, 1]
    assert single["best"]["top1_error"] == min(alone) > described["top1_error"]
    assert single["worst"]["top1_error"] == max(alone)
    assert single["mean"]["top1_error"] == pytest.approx(np.mean(alone))
    assert whole["best"]["members"] == runs

    for arguments, word in (
        (["run0", "run0"], "one and the same network"),
        (["run0", "all.npz"], "already; give their own"),
        (["run0", "run1", "output=all.json"], "output: all.json"),
        (["run0", "nowhere.npz"], "nowhere.npz"),
        (["run0", "run1", "crops=single"], "no predictions with crops=single"),
        (["absent", "run1", "output=nowhere/all.npz"], "output: nowhere is no folder"),
        (["run0"], "1 members given; allowed are 2 to 10"),
        (["run0"] * 11, "11 members given; allowed are 2 to 10"),
    ):
        before = sorted(tmp_path.rglob("*"))
        assert word in refusal(dispatch, ["ensemble", *arguments])
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("member", "changed", "named"),
    [
        (1, {"images": 41}, "40 and 41 images"),
        (1, {"ids": 3}, "image 4 is .* other.JPEG"),
        (1, {"labels": 5}, "/5.JPEG has the label"),
        (1, {"probabilities": 6}, "/6.JPEG could be read"),
        (1, {"classes": [f"m{number}" for number in range(CLASSES)]}, "class 0 is n0 .* m0"),
        (1, {"crops": "single"}, "crops are 144 .* single"),
        (1, {"statistics": "population"}, "statistics are running .* population"),
        (1, {"checkpoint": {"sha256": "hash 0"}}, "one and the same network"),
        (0, {"checkpoint": {"sha256": "other"}}, "one and the same network"),
    ],
)
def test_members_that_do_not_fit_are_refused(tmp_path, member, changed, named):
    ((key, value),) = changed.items()
    arrays = {"ids": "other.JPEG", "labels": 11, "probabilities": 0}
    other = predictions(member, **({} if key in arrays else changed))
    if key in arrays:
        getattr(other, key)[value] = arrays[key]
    paths = saved(tmp_path, [predictions(0), other])
    text = refusal(ensemble, paths, names(paths))
    assert re.search(named, text) and all(str(path) in text for path in paths)


def test_a_run_folder_stands_for_its_predictions(tmp_path):
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


def placed(places, classes=8):
    """Predictions that put each image's label at a place of their ranking."""
    count = len(places)
    labels = np.arange(count) % classes
    probabilities = np.zeros((count, classes))
    steps = np.arange(classes, 0, -1) / (classes * (classes + 1) / 2)
    for image, place in enumerate(places):
        order = [c for c in range(classes) if c != labels[image]]
        order.insert(place, int(labels[image]))
        probabilities[image, order] = steps
    ids = np.array([f"{image}.png" for image in range(count)])
    return Predictions(ids, labels, probabilities.astype(np.float16))


def compared(first, second):
    return paired_differences(first, second, names=("a", "b"))


def split(only_first, only_second, both=2):
    """By top-1 error, of two networks that disagree on so many images."""
    one = [0] * only_first + [1] * only_second + [0] * both
    other = [1] * only_first + [0] * only_second + [0] * both
    return compared(placed(one, 2), placed(other, 2))[0]


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    # From the third on: R's binom.test(3, 7), (5, 20) and (0, 6).
    [(0, 0, 1.0), (7, 7, 1.0), (3, 4, 1.0), (5, 15, 0.04138947), (0, 6, 0.03125), (0, 2000, 0.0)],
)
def test_mcnemars_exact_p_value(only_first, only_second, p):
    assert split(only_first, only_second).p_value == pytest.approx(p, rel=1e-6)
    assert split(only_second, only_first).p_value == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize(
    ("wrong", "count", "low", "high"),
    # By hand from Wilson's formula; 10,050 of 50,000 is Figure 4's 20.1 %.
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634),
     (10_050, 50_000, 0.1975, 0.2045)],
)  # fmt: skip
def test_the_interval_of_a_rate(wrong, count, low, high):
    assert wilson_interval(wrong, count) == pytest.approx((low, high), abs=1e-4)


def test_the_bootstrap_is_a_resampling_of_images():
    only_first, only_second, count = 30, 60, 400
    outcomes = np.repeat([1, -1, 0], [only_first, only_second, count - only_first - only_second])
    generator = np.random.default_rng(5)
    drawn = [generator.choice(outcomes, count).mean() for _ in range(10_000)]
    interval = split(only_first, only_second, count - 90).interval
    expected = tuple(np.percentile(drawn, [2.5, 97.5]))
    assert interval == pytest.approx(expected, abs=0.0026)  # one image in 400
    assert split(0, 0, 10).interval == (0.0, 0.0)


FIRST = [0, 0, 1, 5, 7, 0, 0, 0]
SECOND = [0, 3, 0, 0, 6, 5, 1, 0]


def test_counts_of_a_comparison():
    top1, top5 = compared(placed(FIRST), placed(SECOND))
    assert (top1.only_first, top1.only_second, top1.errors) == (3, 2, (3, 4))
    assert top1.interval[0] < top1.difference == 1 / 8 < top1.interval[1]
    assert (top5.only_first, top5.only_second, top5.difference) == (1, 1, 0)
    turned, _ = compared(placed(SECOND), placed(FIRST))
    assert (turned.difference, turned.p_value) == (-1 / 8, top1.p_value)
    # An unreadable image is an error of its network.
    unreadable = placed(FIRST)
    unreadable.probabilities[0] = 0
    assert [error.only_first for error in compared(placed(FIRST), unreadable)] == [1, 1]


def test_the_command_difference(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, places in (("a", FIRST), ("b", SECOND), ("c", FIRST[:7])):
        write_predictions(f"{name}.npz", placed(places))
    assert dispatch(["difference", "a.npz", "b.npz", "output=d.json"]) == 0
    printed = capsys.readouterr().out
    assert "difference = b minus a" in printed and "McNemar" in printed
    written = json.loads(Path("d.json").read_text())
    assert (written["first"], written["second"], written["count"]) == ("a", "b", 8)
    assert written["top1"]["difference"] == 0.125 and written["top5"]["only_first"] == 1
    for arguments, word in (
        (["a.npz"], "1 predictions given"),
        (["a.npz", "c.npz"], "a.npz and c.npz: 8 and 7 images"),
        (["a.npz", "b.npz", "seed=-1"], "seed: -1"),
    ):
        assert word in refusal(dispatch, ["difference", *arguments])
