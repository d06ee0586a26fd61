from dataclasses import replace

import pytest
from report.conftest import write_evaluation

from bn_inception.errors import UserError
from bn_inception.paper.results import CONTROLS, FIGURE_3
from bn_inception.record.summary import RunStatus
from bn_inception.report.claims import judge
from bn_inception.report.comparison import compare, evaluated_models
from bn_inception.report.runs import read_run


def rows(runs, baseline="inception"):
    return {row.recipe: row for row in compare(runs, baseline).rows}


def test_figure_3(figure3_runs):
    comparison = compare(figure3_runs)
    assert (comparison.baseline, comparison.target) == ("Inception", pytest.approx(0.24))
    order = [*FIGURE_3, *CONTROLS]
    assert [row.recipe for row in comparison.rows] == order
    assert [row.paper for row in comparison.rows] == [FIGURE_3.get(recipe) for recipe in order]
    by_recipe = rows(figure3_runs)
    plain = by_recipe["inception"]
    assert plain.is_baseline and plain.outcome == "sets the target"
    assert plain.plateau.value == pytest.approx(0.25)
    # From 20 % at 300 steps to the block of 24.5 % that begins at 400.
    assert plain.steps == pytest.approx(389, abs=1)
    fast = by_recipe["bn_x5"]
    assert fast.steps == pytest.approx(140)
    assert fast.ratio.value == pytest.approx(140 / 389, rel=1e-2)
    assert fast.paper_ratio == pytest.approx(0.0677, abs=1e-4)
    assert fast.ratio.low < fast.ratio.value < fast.ratio.high
    assert fast.shares[0] == pytest.approx(100 / 300)
    assert fast.difference.value == pytest.approx(0.1)
    assert by_recipe["bn_x5_sigmoid"].steps is None
    early = by_recipe["bn_baseline"]
    assert (early.plateau, early.steps, early.ratio) == (None, None, None)
    outcomes = {recipe: row.outcome for recipe, row in by_recipe.items()}
    assert outcomes == {
        "inception": "sets the target",
        "bn_baseline": "no evaluation; running, or killed, since step 0",
        "bn_x5": "reached the target",
        "bn_x30": "reached the target",
        "bn_x5_sigmoid": "never reached the target",
        "inception_x5": "never reached the target; diverged at step 1,234 in layer 4e.pool; "
        'paper: "the model parameters reach machine infinity"',
        "inception_sigmoid": "never reached the target; did not start learning; "
        'paper: "the accuracy remains equivalent to chance"',
    }


def test_the_target_and_the_ratio_are_those_of_claims(figure3_runs):
    row = rows(figure3_runs)["bn_x5"]
    second = judge(figure3_runs)[1].leading
    assert f"{100 * row.ratio.value:.1f} % ({100 * row.ratio.low:.1f} %" in second.reason
    assert f"to {100 * compare(figure3_runs).target:.1f} %" in second.reason


def test_another_baseline_by_run_name_or_recipe(figure3_runs):
    for baseline in ("fast", "bn_x5"):
        comparison = compare(figure3_runs, baseline)
        assert (comparison.baseline, comparison.target) == ("BN-x5", pytest.approx(0.34))
        # The paper counts no steps to this target.
        assert rows(figure3_runs, baseline)["bn_x30"].paper_ratio is None
    with pytest.raises(UserError, match=r"'inception'.*fast \(bn_x5\), faster \(bn_x30\)"):
        compare(figure3_runs[3:5])


def test_seeds_are_one_row(make_run):
    runs = [
        make_run("plain-1", "inception", [0.1, 0.3, 0.3, 0.3], seed=1),
        make_run("plain-0", "inception", [0.1, 0.2, 0.2, 0.2], seed=0),
        make_run("fast-0", "bn_x5", [0.3, 0.3, 0.3], seed=0),
        make_run("fast-1", "bn_x5", [0.2, 0.2, 0.2], seed=1),
        make_run("again-0", "bn_x5", [0.3], seed=0),
        make_run("longer-0", "bn_x5", [0.1] * 9, seed=0, status=RunStatus.running),
        make_run("going-on", "bn_x5", [0.1], seed=2, status=RunStatus.running),
    ]
    comparison = compare(runs)
    plain, fast = comparison.rows
    assert comparison.target == pytest.approx(0.24)
    assert [run.name for run in plain.runs] == ["plain-0", "plain-1"]
    assert [run.name for run in fast.runs] == ["fast-0", "fast-1"]
    assert fast.plateau.value == pytest.approx(0.25) and fast.plateau.source == "2 seeds"
    assert fast.outcome == "1 of 2 reached the target" and fast.steps is None
    unshared = [*runs[:2], make_run("other", "bn_x5", [0.3] * 3, seed=7)]
    assert rows(unshared)["bn_x5"].ratio is None


def test_every_title_is_its_own_and_names_what_differs(make_run):
    a, b, c, d = (make_run(name, "bn_x5", [0.2]) for name in ("a", "b", "c", "d"))
    runs = [
        make_run("plain", "inception", [0.1]),
        a,
        replace(b, overrides=("network.dropout=0.4",)),
        replace(c, unknown=("no config.yaml",)),
        replace(d, environment={"machine": {"precision": "bf16"}}),
        make_run("e", "bn_x5", [0.2], scale="small"),
    ]
    titles = [row.title for row in compare(runs).rows]
    assert len(set(titles)) == 6
    for words in (
        "network.dropout=0.4",
        "BN-x5 scale=cpu fp32 (c)",
        "scale=cpu bf16",
        "scale=small",
    ):
        assert sum(words in title for title in titles) == 1, (words, titles)


def test_an_unfinished_run_may_still_reach_the_target(make_run):
    plain = make_run("plain", "inception", [0.2])
    fast = make_run("fast", "bn_x5", [0.1], status=RunStatus.interrupted)
    assert rows([plain, fast])["bn_x5"].outcome == (
        "target not reached yet; interrupted at step 100"
    )


@pytest.mark.parametrize(
    ("plain", "fast", "note"),
    [
        ({}, {"scale": "small"}, "different scales (cpu, small)"),
        ({"fingerprint": "a"}, {"fingerprint": "b"}, "data fingerprints (a, b)"),
        ({}, {"classes": 20}, "numbers of classes (100, 20)"),
        ({"status": RunStatus.running}, {}, "not a finished run (running)"),
        ({"classes": 5}, {"classes": 5}, "show nothing: the target 9.0 % is at chance"),
        ({}, {"batch": 256}, "images seen / 32"),
    ],
)
def test_what_makes_runs_incomparable_is_noted(make_run, plain, fast, note):
    usual = [make_run("a", "inception", [0.1] * 9), make_run("b", "bn_x5", [0.2])]
    assert not any(note in text for text in compare(usual).notes)
    unusual = [
        make_run("c", "inception", [0.1] * 9, **plain),
        make_run("d", "bn_x5", [0.2], **fast),
    ]
    assert any(note in text for text in compare(unusual).notes)


def test_a_larger_batch_is_compared_by_images(make_run):
    plain = make_run("plain", "inception", [0.1, 0.2, 0.2, 0.2])
    large = make_run("large", "bn_x30", [0.3], every=10, batch=256)
    # From chance at step 0 to 30 % after ten mini-batches, which are 80 steps of 32.
    assert rows([plain, large])["bn_x30"].steps == pytest.approx(80 * (0.19 - 0.01) / 0.29)


def test_of_a_runs_evaluations_figure_4_has_its_own(make_run):
    run = make_run("x30", "bn_x30", [0.2])
    for name, error in (("single-population-last", 0.9), ("single-population", 0.3)):
        write_evaluation(run.path / "evaluation" / f"{name}.json", "single", error)
    ((_, (entry,)),) = evaluated_models(compare([read_run(run.path)], "bn_x30"))
    assert entry.top5_error == 0.3


def test_a_baseline_without_an_evaluation_gives_no_target(make_run):
    runs = [make_run("plain", "inception", []), make_run("b", "bn_x5", [0.2])]
    going = {"status": RunStatus.running}
    others = [make_run(f"s{n}", "inception", n * [0.2], seed=n, **going) for n in (0, 1)]
    assert compare(others).target == pytest.approx(0.19)  # by the one that has an evaluation
    comparison = compare(runs)
    assert comparison.target is None and rows(runs)["bn_x5"].ratio is None
    assert any("no evaluation" in note for note in comparison.notes)
