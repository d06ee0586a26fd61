import math

import pytest

from bn_inception.report import accuracy_difference, compare, group_seeds, read_runs, seeds
from bn_inception.report.seeds import (
    difference_of_pairs,
    difference_of_rates,
    difference_of_seeds,
    distinct_seeds,
    spread,
    student_t,
)


# Tables of Student's t, two-sided 95 %.
@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (1000, 1.962)],
)
def test_student_t_is_the_tables(degrees, quantile):
    assert student_t(degrees) == pytest.approx(quantile, abs=6e-4)


def test_student_t_at_other_levels_and_between_whole_degrees():
    assert student_t(10, 0.99) == pytest.approx(3.169, abs=6e-4)
    assert student_t(2) < student_t(1.5) < student_t(1)
    with pytest.raises(ValueError, match="degrees"):
        student_t(0.5)


def test_spread():
    one = spread([0.5])
    assert (one.mean, one.std, one.low, one.high) == (0.5, None, None, None)
    three = spread([0.1, 0.2, 0.3])
    assert (three.mean, three.std) == (pytest.approx(0.2), pytest.approx(0.1))
    half = 4.3027 * 0.1 / math.sqrt(3)
    assert three.high - three.mean == pytest.approx(half, rel=1e-4)
    assert three.mean - three.low == pytest.approx(half, rel=1e-4)


def test_welch():
    # Two samples whose Welch-Satterthwaite degrees of freedom are known: 4 for equal variances.
    difference = difference_of_seeds([3.0, 4.0, 5.0], [1.0, 2.0, 3.0])
    half = 2.776 * math.sqrt(2 / 3)
    assert difference.value == 2.0
    assert (difference.high - difference.low) / 2 == pytest.approx(half, rel=1e-3)
    assert difference.within_noise
    assert not difference_of_seeds([3.0, 4.0, 5.0], [0.0, 1.0, 2.0]).within_noise
    equal = difference_of_seeds([0.3, 0.3], [0.2, 0.2])
    assert (equal.low, equal.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_newcombe():
    # Newcombe 1998, table II, example (a): 56/70 - 48/80, method 10: 0.0524 to 0.3339.
    difference = difference_of_rates(56 / 70, 48 / 80, 70, 80)
    assert (difference.low, difference.high) == (
        pytest.approx(0.0524, abs=1e-4),
        pytest.approx(0.3339, abs=1e-4),
    )


def test_pairs():
    # The approval ratings of Agresti's textbook: 150 and 86 of 1600 change sides. Wald's interval
    # there is 0.021 to 0.059.
    difference = difference_of_pairs(150, 86, 1600)
    assert difference.value == 0.04
    assert (difference.low, difference.high) == pytest.approx((0.021, 0.059), abs=1e-3)
    nothing = difference_of_pairs(0, 0, 100)
    assert nothing.within_noise and nothing.high < 0.02


def test_one_seed_is_judged_by_its_images_and_more_by_themselves(make_run):
    one = read_runs([make_run("a", "bn_x5", [0.30], count=1000)])
    other = read_runs([make_run("b", "inception", [0.28], count=1000)])
    difference = accuracy_difference(one, other)
    assert difference.within_noise
    assert "binomial, 1,000 images" in difference.source
    more = read_runs(
        [make_run(f"b{seed}", "inception", [0.28], seed=seed, count=1000) for seed in (0, 1)]
    )
    # Three runs on one set of images are not three sets.
    assert accuracy_difference(one, more) == difference
    both = read_runs([make_run(f"a{s}", "bn_x5", [0.3 + s / 1000], seed=s) for s in (0, 1)])
    assert accuracy_difference(both, more).source == "Welch, 2 and 2 seeds"
    empty = read_runs([make_run("c", "bn_x5", [])])
    assert accuracy_difference(empty, other) is None


def test_equal_seeds_are_one(make_run):
    runs = read_runs(
        [
            make_run("rare", "bn_x5", [0.3]),
            make_run("often", "bn_x5", [0.2, 0.3]),
            make_run("other", "bn_x5", [0.3], seed=1),
        ]
    )
    assert {run.name for run in distinct_seeds(runs)} == {"often", "other"}


@pytest.fixture
def seeded(make_run):
    return [
        make_run("plain-0", "inception", [0.1, 0.20], seed=0),
        make_run("plain-1", "inception", [0.1, 0.22], seed=1),
        make_run("fast-0", "bn_x5", [0.1, 0.22, 0.3], seed=0),
        make_run("fast-1", "bn_x5", [0.1, 0.15, 0.32], seed=1),
        make_run("single", "bn_x30", [0.24], seed=0),
    ]


def test_groups(seeded):
    runs = read_runs(seeded)
    comparison = compare(runs)
    plain, fast, single = group_seeds(runs, comparison.target, baseline=comparison.baseline)
    assert plain.against_baseline is None
    assert plain.maximum.mean == pytest.approx(0.21)
    # One of the two did not reach the other's maximum.
    assert (plain.reached, plain.steps_to_target) == (1, None)
    assert fast.maximum.values == (0.3, 0.32)
    assert fast.steps_to_target.values == (200, 300)
    assert fast.against_baseline.value == pytest.approx(0.1)
    assert single.maximum.std is None
    assert single.against_baseline.within_noise


def test_the_table_of_seeds(seeded):
    runs = read_runs(seeded)
    comparison = compare(runs)
    groups = group_seeds(runs, comparison.target, baseline=comparison.baseline)
    text = seeds(groups, comparison.target).as_text()
    assert "1 of 2 reached it" in text
    assert "31.0 %" in text and "250" in text
    single = " ".join(text[text.index("\nbn_x30") :].split())
    assert "smaller than the noise" in single
    assert seeds(groups[2:], comparison.target) is None


def test_runs_of_other_settings_are_other_groups(make_run):
    runs = read_runs(
        [
            make_run("a", "bn_x5", [0.1]),
            make_run("b", "bn_x5", [0.1], seed=1, scale="small"),
            make_run("c", "bn_x5", [0.1], seed=2, fingerprint="other"),
        ]
    )
    assert [len(group.runs) for group in group_seeds(runs, None)] == [1, 1, 1]
