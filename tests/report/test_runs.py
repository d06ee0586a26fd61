import json

import pytest

from bn_inception.errors import UserError
from bn_inception.report import read_run, read_runs


def test_a_run_is_its_folder(make_run):
    run = read_run(make_run("plain", "inception", [0.1, 0.3, 0.2], fingerprint="abc"))
    assert (run.name, run.summary.recipe, run.data_fingerprint) == ("plain", "inception", "abc")
    assert run.steps == (100, 200, 300)
    assert run.top1 == (0.1, 0.3, 0.2)
    assert run.plateau == pytest.approx(0.2)
    assert read_run(make_run("empty", "inception", [])).plateau is None


def test_steps_count_images(make_run):
    assert read_run(make_run("large", "bn_x30", [0.1, 0.2], batch=256)).steps == (800, 1600)


def test_old_lines_without_equivalent_steps_count_images_too(make_run):
    folder = make_run("large", "bn_x30", [0.1, 0.2], batch=256)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["equivalent_steps"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_run(folder).steps == (800, 1600)


def test_a_run_that_was_killed_in_mid_line_is_read(make_run):
    folder = make_run("plain", "inception", [0.1, 0.3])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "validation", "st')
    assert read_run(folder).top1 == (0.1, 0.3)


@pytest.mark.parametrize("missing", ["summary.json", "metrics.jsonl"])
def test_what_is_missing_is_named(make_run, missing):
    folder = make_run("plain", "inception", [0.1])
    (folder / missing).unlink()
    with pytest.raises(UserError, match=f"not a run folder.*{missing} missing"):
        read_run(folder)


def test_bad_arguments(make_run, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_run(tmp_path / "nothing")
    with pytest.raises(UserError, match="no run folder given"):
        read_runs([])
    folder = make_run("plain", "inception", [0.1])
    with pytest.raises(UserError, match="given twice"):
        read_runs([folder, f"{folder}/../plain"])
