import json
import subprocess
import sys

import pytest
from report.conftest import write_evaluation

from bn_inception.errors import UserError
from bn_inception.report.comparison import compare
from bn_inception.report.evaluations import read_saved
from bn_inception.report.page import write_report
from bn_inception.report.tables import Table, as_json, figure3


def test_equal_runs_give_equal_files(figure3_runs, tmp_path):
    runs, comparison = figure3_runs, compare(figure3_runs)
    first = write_report(comparison, runs, tmp_path / "first" / "new")
    assert sorted(path.name for path in first) == sorted(p.name for p in first[0].parent.iterdir())
    assert [path.name for path in first] == [
        "report.html",
        "comparison.md",
        "comparison.json",
        "figure2.png",
        "figure2.svg",
    ]
    assert first[1].read_text() == figure3(comparison).as_markdown() + "\n"
    assert first[2].read_text() == as_json(comparison)
    second = write_report(compare(runs), runs, tmp_path / "second")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_an_ensemble_is_a_row(make_run, tmp_path):
    path = write_evaluation(tmp_path / "six.json", "144", 0.123, models=6)
    runs = [make_run("plain", "inception", [0.1])]
    page, markdown, data, *_ = write_report(
        compare(runs), runs, tmp_path / "report", ensembles=[read_saved(path)]
    )
    assert "12.3 ±1.0" in page.read_text() and "12.3 ±1.0" in markdown.read_text()
    (entry,) = json.loads(data.read_text())["evaluations"]
    assert (entry["name"], entry["models"], entry["top5_error"]) == ("six", 6, 0.123)
    assert str(tmp_path) not in data.read_text()


def test_text_and_markdown_say_the_same(figure3_runs):
    comparison = compare(figure3_runs)
    table = figure3(comparison)
    text, markdown = table.as_text(), table.as_markdown()
    for words in (
        "Target: 24.0 % top-1, the plateau of Inception less one point",
        "140",
        "33.3 %",
        "2.1e6",
        "6.8 %",
        "never",
        "diverged at step 1,234 in layer 4e.pool",
        "did not start learning",
        'paper: "the model parameters reach machine infinity"',
    ):
        assert words in " ".join(text.split())  # a long cell takes several lines
        assert words in markdown
    cells = {line.count("|") for line in markdown.splitlines() if line.startswith("|")}
    assert cells == {12}
    assert max(map(len, text.splitlines())) <= 175


def test_a_table_fits_and_names_stay_whole():
    name, sentence = "a-name-of-" + "x" * 30, "never reached the target, and was stopped by hand"
    table = Table("", "", ["run", "steps to target", "outcome"], [[name, "7", sentence]], [1])
    assert table.as_text(75).splitlines() == [
        "",
        f"{'run':<40}   steps  outcome",
        f"{'':<40}      to",
        f"{'':<40}  target",
        "-" * 75,
        f"{name}       7  never reached the target,",
        f"{'':<50}and was stopped by hand",
    ]
    assert len(table.as_text().splitlines()) == 6


def test_json_is_for_programs(figure3_runs):
    values = json.loads(as_json(compare(figure3_runs)))
    assert (values["baseline"], values["target"]) == ("Inception", pytest.approx(0.24))
    row = next(row for row in values["rows"] if row["recipe"] == "bn_x5")
    assert row["runs"][0]["name"] == "fast" and row["runs"][0]["status"] == "finished"
    assert row["steps"] == pytest.approx(140) and row["kind"] == "recipe"
    assert row["ratio"]["low"] < row["ratio"]["value"] < row["ratio"]["high"]
    assert row["paper"]["steps_to_72_2"] == 2_100_000
    # Without an end: JSON has no infinity.
    sigmoid = next(row for row in values["rows"] if row["recipe"] == "bn_x5_sigmoid")
    assert sigmoid["ratio"]["high"] is None


def test_a_folder_that_cannot_be_written(figure3_runs, tmp_path):
    (tmp_path / "file").write_text("")
    runs = figure3_runs
    with pytest.raises(UserError, match=r"output: .* cannot be created"):
        write_report(compare(runs), runs, tmp_path / "file" / "report")


def test_a_whole_comparison_needs_no_torch(figure3_runs, tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from bn_inception.report.comparison import compare\n"
        "from bn_inception.report.page import write_report\n"
        "from bn_inception.report.runs import read_runs\n"
        "runs = read_runs(sys.argv[2:])\n"
        "write_report(compare(runs), runs, Path(sys.argv[1]))\n"
        "sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)\n"
    )
    folders = [str(run.path) for run in figure3_runs]
    command = [sys.executable, "-c", program, str(tmp_path), *folders]
    subprocess.run(command, check=True)
