"""How surely an error, or a difference of two, is known: against definitions and R."""

import json
from pathlib import Path

import numpy as np
import pytest

from bn_inception import UserError
from bn_inception.cli.main import dispatch, main
from bn_inception.evaluation.errors import wilson_interval
from bn_inception.evaluation.paired import bootstrap_interval, compare_predictions, mcnemar
from bn_inception.record import Predictions, write_predictions


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    # From the third on: R's binom.test(3, 7), (5, 20) and (0, 6).
    [(0, 0, 1.0), (7, 7, 1.0), (3, 4, 1.0), (5, 15, 0.04138947), (0, 6, 0.03125), (0, 5000, 0.0)],
)
def test_mcnemars_exact_p_value(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p, rel=1e-6)
    assert mcnemar(only_second, only_first) == pytest.approx(p, rel=1e-6)


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
    low, high = bootstrap_interval(only_first, only_second, count, seed=0)
    expected = np.percentile(drawn, [2.5, 97.5])
    assert (low, high) == pytest.approx(tuple(expected), abs=0.0026)  # one image in 400
    assert bootstrap_interval(only_first, only_second, count, seed=0) == (low, high)
    assert bootstrap_interval(0, 0, 10, seed=1) == (0.0, 0.0)


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


FIRST = [0, 0, 1, 5, 7, 0, 0, 0]
SECOND = [0, 3, 0, 0, 6, 5, 1, 0]


def test_counts_of_a_comparison() -> None:
    result = compare_predictions(predictions(FIRST), predictions(SECOND))
    assert (result.top1.only_first, result.top1.only_second) == (3, 2)
    assert result.top1.errors == (3, 4)
    assert result.top1.difference == 1 / 8
    assert (result.top5.only_first, result.top5.only_second) == (1, 1)
    assert result.top5.difference == 0
    low, high = result.top1.interval
    assert low < 1 / 8 < high
    turned = compare_predictions(predictions(SECOND), predictions(FIRST))
    assert turned.top1.difference == -1 / 8
    assert turned.top1.p_value == result.top1.p_value


def test_an_unreadable_image_is_an_error_of_its_network() -> None:
    unreadable = predictions(FIRST)
    unreadable.probabilities[0] = 0
    result = compare_predictions(predictions(FIRST), unreadable)
    assert (result.top1.only_first, result.top5.only_first) == (1, 1)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_predictions("a.npz", predictions(FIRST))
    write_predictions("b.npz", predictions(SECOND))
    write_predictions("c.npz", predictions(FIRST[:7]))
    assert dispatch(["difference", "a.npz", "b.npz", "output=d.json"]) == 0
    printed = capsys.readouterr().out
    assert "difference = b minus a" in printed and "McNemar" in printed
    written = json.loads(Path("d.json").read_text())
    assert (written["first"], written["second"], written["count"]) == ("a", "b", 8)
    assert written["top1"]["difference"] == 0.125
    for arguments, word in (
        (["a.npz"], "1 predictions given"),
        (["a.npz", "c.npz"], "8 and 7 images"),
        (["a.npz", "b.npz", "seed=-1"], "seed: -1"),
    ):
        with pytest.raises(SystemExit):
            main(["difference", *arguments])
        assert word in capsys.readouterr().err
    with pytest.raises(UserError, match="a and b: 8 and 7"):
        compare_predictions(predictions(FIRST), predictions(FIRST[:7]), names=("a", "b"))
