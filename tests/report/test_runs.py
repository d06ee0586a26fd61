"""Run folders and the evaluations in them, as the report reads them."""

import json

import pytest
from report.conftest import evaluated, write_evaluation

from bn_inception.errors import UserError
from bn_inception.report.curves import plateau_of
from bn_inception.report.runs import read_evaluation, read_run, read_runs


def test_a_run_is_its_folder(make_run):
    run = make_run("plain", "inception", [0.1, 0.3, 0.2], fingerprint="abc")
    assert (run.name, run.summary.recipe, run.data_fingerprint) == ("plain", "inception", "abc")
    assert (run.steps, run.top1) == ((100, 200, 300), (0.1, 0.3, 0.2))
    assert plateau_of(run) == pytest.approx(0.2)
    # Steps count images.
    assert make_run("large", "bn_x30", [0.1, 0.2], batch=256).steps == (800, 1600)
    assert plateau_of(make_run("empty", "inception", [])) is None


def test_a_run_that_was_killed_in_mid_line_is_read(make_run):
    run = make_run("plain", "inception", [0.1, 0.3])
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "validation", "st')
    assert read_run(run.path).top1 == (0.1, 0.3)


def test_a_run_that_is_given_twice_would_count_twice(make_run):
    folder = make_run("plain", "inception", [0.1]).path
    with pytest.raises(UserError, match="given twice"):
        read_runs([folder, f"{folder}/../plain"])


def test_evaluations_lie_beside_the_run(make_run):
    run = make_run("a", "bn_x30", [0.1])
    assert run.evaluations == ()
    run = evaluated(run, ("single", 0.3))
    (run.path / "evaluation" / "notes.json").write_text('{"something": "else"}')
    multi, single = evaluated(run, ("144", 0.2), statistics=None).evaluations
    assert (single.crops, single.top5_error, single.statistics) == ("single", 0.3, "population")
    assert (multi.crops, multi.statistics) == ("144", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top5_error": 1.5}, "'top5_error' is 1.5"),
        ({"top5_interval": [0.1]}, "'top5_interval' is .*expected 2 numbers"),
        ({"accuracy_by_crops": [[1, "a", 0.2]]}, "'accuracy_by_crops'.*'a'; expected a fraction"),
        ({"models": True}, "'models' is True"),
    ],
)
def test_broken_evaluations_are_named(tmp_path, change, message):
    path = write_evaluation(tmp_path / "a.json", "144", 0.2)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=f"a.json: {message}"):
        read_evaluation(path)
