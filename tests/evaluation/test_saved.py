"""Saved predictions compared: how surely an error, or a difference of two, is known."""

import json
from pathlib import Path

import numpy as np
import pytest
from evaluation.networks import refusal

from bn_inception.cli.main import dispatch
from bn_inception.evaluation.saved import PairedDifference, paired_differences, wilson_interval
from bn_inception.record.predictions import Predictions, write_predictions


def predictions(places: list[int], classes: int = 8) -> Predictions:
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


def compared(first: Predictions, second: Predictions) -> tuple[PairedDifference, PairedDifference]:
    return paired_differences(first, second, names=("a", "b"))


def split(only_first: int, only_second: int, both: int = 2) -> PairedDifference:
    """By top-1 error, of two networks that disagree on so many images."""
    one = [0] * only_first + [1] * only_second + [0] * both
    other = [1] * only_first + [0] * only_second + [0] * both
    return compared(predictions(one, 2), predictions(other, 2))[0]


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    # From the third on: R's binom.test(3, 7), (5, 20) and (0, 6).
    [(0, 0, 1.0), (7, 7, 1.0), (3, 4, 1.0), (5, 15, 0.04138947), (0, 6, 0.03125), (0, 2000, 0.0)],
)
def test_mcnemars_exact_p_value(only_first: int, only_second: int, p: float) -> None:
    assert split(only_first, only_second).p_value == pytest.approx(p, rel=1e-6)
    assert split(only_second, only_first).p_value == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize(
    ("wrong", "count", "low", "high"),
    # By hand from Wilson's formula; 10,050 of 50,000 is Figure 4's 20.1 %.
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634),
     (10_050, 50_000, 0.1975, 0.2045)],
)  # fmt: skip
def test_the_interval_of_a_rate(wrong: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(wrong, count) == pytest.approx((low, high), abs=1e-4)


def test_the_bootstrap_is_a_resampling_of_images() -> None:
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


def test_counts_of_a_comparison() -> None:
    top1, top5 = compared(predictions(FIRST), predictions(SECOND))
    assert (top1.only_first, top1.only_second, top1.errors) == (3, 2, (3, 4))
    assert top1.interval[0] < top1.difference == 1 / 8 < top1.interval[1]
    assert (top5.only_first, top5.only_second, top5.difference) == (1, 1, 0)
    turned, _ = compared(predictions(SECOND), predictions(FIRST))
    assert (turned.difference, turned.p_value) == (-1 / 8, top1.p_value)
    # An unreadable image is an error of its network.
    unreadable = predictions(FIRST)
    unreadable.probabilities[0] = 0
    assert [error.only_first for error in compared(predictions(FIRST), unreadable)] == [1, 1]


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, places in (("a", FIRST), ("b", SECOND), ("c", FIRST[:7])):
        write_predictions(f"{name}.npz", predictions(places))
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
