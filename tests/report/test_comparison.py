import pytest

from bn_inception.errors import UserError
from bn_inception.record import RunStatus
from bn_inception.report import compare, read_run, read_runs


def rows(comparison):
    return {row.name: row for row in comparison.rows}


def test_figure_3(figure3_runs):
    comparison = compare(read_runs(figure3_runs))
    assert (comparison.baseline, comparison.target) == ("plain", 0.25)
    by_name = rows(comparison)
    plain = by_name["plain"]
    assert plain.is_baseline
    assert (plain.title, plain.maximum_top1, plain.maximum_step) == ("Inception", 0.25, 400)
    assert (plain.steps_to_target, plain.previous_step, plain.ratio) == (400, 300, 1.0)
    assert plain.outcome == "sets the target"
    fast = by_name["fast"]
    assert (fast.steps_to_target, fast.previous_step, fast.ratio) == (200, 100, 0.5)
    assert fast.outcome == "reached the target"
    assert by_name["faster"].maximum_top1 == 0.5
    sigmoid = by_name["sigmoid"]
    assert (sigmoid.steps_to_target, sigmoid.previous_step, sigmoid.ratio) == (None, None, None)
    assert sigmoid.outcome == "never reached the target"
    assert by_name["control"].outcome == (
        "never reached the target; diverged at step 1,234 in layer 4e.pool"
    )
    assert by_name["dead"].outcome == "never reached the target; did not start learning"
    early = by_name["early"]
    assert early.outcome == "no evaluation; running, or killed, since step 0"
    assert (early.maximum_top1, early.maximum_step, early.steps_to_target) == (None, None, None)


def test_the_papers_numbers_stand_beside(figure3_runs):
    by_name = rows(compare(read_runs(figure3_runs)))
    assert by_name["fast"].paper.steps_to_target == 2_100_000
    assert by_name["fast"].paper.ratio == pytest.approx(0.0677, abs=1e-4)
    assert by_name["faster"].paper.maximum_top1 == pytest.approx(0.748)
    assert by_name["sigmoid"].paper.steps_to_target is None
    assert "infinity" in by_name["control"].paper.statement


def test_rows_are_in_the_papers_order(figure3_runs):
    comparison = compare(read_runs(figure3_runs))
    assert [row.recipe for row in comparison.rows] == [
        "inception",
        "bn_baseline",
        "bn_x5",
        "bn_x30",
        "bn_x5_sigmoid",
        "inception_x5",
        "inception_sigmoid",
    ]


def test_another_baseline_by_run_name_or_recipe(figure3_runs):
    runs = read_runs(figure3_runs)
    for baseline in ("fast", "bn_x5"):
        comparison = compare(runs, baseline)
        assert (comparison.baseline, comparison.target) == ("fast", 0.4)
        assert rows(comparison)["faster"].ratio == 0.75
        # The paper counts no steps to this target.
        assert rows(comparison)["faster"].paper.ratio is None


def test_a_missing_baseline_names_what_is_there(figure3_runs):
    with pytest.raises(UserError) as error:
        compare(read_runs(figure3_runs[3:5]))
    assert "'inception'" in str(error.value)
    assert "fast (bn_x5), faster (bn_x30)" in str(error.value)


def test_seeds_have_a_row_each_and_the_best_baseline_sets_the_target(make_run):
    runs = read_runs(
        [
            make_run("plain-1", "inception", [0.1, 0.3], seed=1),
            make_run("plain-0", "inception", [0.1, 0.2], seed=0),
            make_run("fast-0", "bn_x5", [0.3], seed=0),
        ]
    )
    comparison = compare(runs)
    assert [row.name for row in comparison.rows] == ["plain-0", "plain-1", "fast-0"]
    assert (comparison.baseline, comparison.target) == ("plain-1", 0.3)
    assert any("2 runs of inception" in note for note in comparison.notes)


def test_runs_of_one_name_are_told_apart_by_their_paths(make_run):
    folders = [make_run("a", "inception", [0.1], root=root) for root in ("first", "second")]
    assert {row.name for row in compare(read_runs(folders)).rows} == set(map(str, folders))


def test_an_unfinished_run_may_still_reach_the_target(make_run):
    plain = make_run("plain", "inception", [0.2])
    fast = make_run("fast", "bn_x5", [0.1], status=RunStatus.interrupted)
    outcome = rows(compare(read_runs([plain, fast])))["fast"].outcome
    assert outcome == "target not reached yet; interrupted at step 100"


@pytest.mark.parametrize(
    ("plain", "fast", "note"),
    [
        ({}, {"scale": "small"}, "different scales (cpu, small)"),
        ({"fingerprint": "a"}, {"fingerprint": "b"}, "fingerprints differ"),
        ({}, {"classes": 20}, "numbers of classes (20, 100)"),
        ({"status": RunStatus.running}, {}, "not a finished run (running)"),
        ({"started_learning": False}, {}, "did not start learning: reaching"),
        ({}, {"batch": 256}, "images seen / 32"),
    ],
)
def test_what_makes_runs_incomparable_is_noted(make_run, plain, fast, note):
    usual = make_run("a", "inception", [0.1]), make_run("b", "bn_x5", [0.2])
    assert not any(note in text for text in compare(read_runs(usual)).notes)
    unusual = (
        make_run("c", "inception", [0.1], **plain),
        make_run("d", "bn_x5", [0.2], **fast),
    )
    assert any(note in text for text in compare(read_runs(unusual)).notes)


def test_a_larger_batch_is_compared_by_images(make_run):
    plain = make_run("plain", "inception", [0.1, 0.2])
    large = make_run("large", "bn_x30", [0.3], every=10, batch=256)
    row = rows(compare(read_runs([plain, large])))["large"]
    assert (row.steps_to_target, row.ratio) == (80, 0.4)


def test_a_baseline_without_an_evaluation_gives_no_target(make_run):
    runs = [read_run(make_run("plain", "inception", [])), read_run(make_run("b", "bn_x5", [0.2]))]
    comparison = compare(runs)
    assert comparison.target is None
    assert rows(comparison)["b"].ratio is None
    assert any("no target" in note for note in comparison.notes)
