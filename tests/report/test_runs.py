"""Run folders and the evaluations in them, as the report reads them, and how runs stand."""

import json
import os
from datetime import datetime

import pytest
from report.conftest import evaluated, write_evaluation, write_run

from bn_inception.cli.main import dispatch
from bn_inception.errors import UserError
from bn_inception.record.summary import RunStatus
from bn_inception.report.curves import plateau_of
from bn_inception.report.runs import progress, read_evaluation, read_run, read_runs


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


def test_runs_stand_as_their_folders_say(tmp_path, capsys, monkeypatch):
    others = {"status": RunStatus.running, "planned_steps": 1000}
    going = write_run(tmp_path / "going", "bn_x5", [0.1, 0.2], training=[0.1, 0.2], **others)
    write_run(tmp_path / f"{'x' * 60}-seed1", "inception", [0.1], planned_steps=31_000_000)
    write_run(tmp_path / "stopped", "inception", [], status=RunStatus.interrupted)
    # The record is ahead of the summary, and its last line is being written.
    lines = (going / "metrics.jsonl").read_text().splitlines()
    ahead = json.loads(lines[-2]) | {"step": 300, "equivalent_steps": 600.0}
    ahead["images_per_second"] = 64.0
    (going / "metrics.jsonl").write_text("\n".join([*lines, json.dumps(ahead), '{"kind": "tr']))
    # 700 updates of 64 images at 64 images a second, 100 of them gone by.
    os.utime(going / "metrics.jsonl", (0, 0))
    end = f"{datetime.fromtimestamp(700):%d %b %H:%M}"
    monkeypatch.setattr("time.time", lambda: 100.0)
    assert progress(tmp_path).rows == [
        ("going", "running", "300/1,000", "-", "64/s", end),
        ("stopped", "interrupted", "0/?", "-", "-", ""),
        (f"{'x' * 12}…{'x' * 6}-seed1", "finished", "100/31.00M", "-", "-", ""),
    ]
    monkeypatch.setattr("time.time", lambda: 7500.0)
    assert progress(going).rows == [("going", "silent 2:05", "300/1,000", "-", "64/s", "")]
    assert dispatch(["runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 5 and all(len(line) <= 80 for line in out)


def test_watching_shows_the_runs_again(tmp_path, capsys, monkeypatch):
    write_run(tmp_path / "plain", "inception", [0.1])
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        dispatch(["runs", str(tmp_path), "--watch"])
    assert capsys.readouterr().out.count("\nplain ") == 2
