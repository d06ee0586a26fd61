import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import pytest
from PIL import Image

from bn_inception.errors import UserError
from bn_inception.report import as_json, as_markdown, as_text, compare, read_runs, write_report
from bn_inception.report.tables import Table


def test_the_report_is_five_files(figure3_runs, tmp_path):
    runs = read_runs(figure3_runs)
    comparison = compare(runs)
    paths = write_report(comparison, runs, tmp_path / "report" / "new")
    assert [path.name for path in paths] == [
        "report.html",
        "comparison.md",
        "comparison.json",
        "figure2.png",
        "figure2.svg",
    ]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(
        path.name for path in paths
    )
    assert paths[1].read_text() == as_markdown(comparison)
    assert paths[2].read_text() == as_json(comparison)


def test_equal_runs_give_equal_files_whatever_the_users_style(figure3_runs, tmp_path, monkeypatch):
    runs = read_runs(figure3_runs)
    first = write_report(compare(runs), runs, tmp_path / "first")
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 20.0)
    second = write_report(compare(runs), runs, tmp_path / "second")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert matplotlib.rcParams["font.size"] == 20.0


def test_the_figure_has_a_curve_a_run_and_the_papers_names(figure3_runs, tmp_path):
    runs = read_runs(figure3_runs)
    *_, png, svg = write_report(compare(runs), runs, tmp_path)
    text = svg.read_text()
    ET.fromstring(text)
    assert "<dc:date>" not in text
    # matplotlib writes each text as a comment before its outlines.
    for label in ("Inception", "BN-x5", "BN-x30", "target 24.0 %", "(diverged at 1,234)"):
        assert f"<!-- {label} -->" in text
    with Image.open(png) as image:
        assert image.size == (1200, 720)
        # Black, blue, green, vermilion, purple, orange and sky blue curves on white.
        colours = {colour for _, colour in image.convert("RGB").getcolors(100_000)}
    for colour in ("#000000", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9"):
        assert tuple(bytes.fromhex(colour[1:])) in colours


def test_text_and_markdown_say_the_same(figure3_runs):
    comparison = compare(read_runs(figure3_runs))
    text, markdown = as_text(comparison), as_markdown(comparison)
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
    lines = text.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("---"))
    assert len(lines[rule]) <= 175
    outcome = next(line.index("outcome") for line in lines[:rule] if "outcome" in line)
    for line in lines[rule + 1 : lines.index("", rule)]:
        assert line[outcome - 2 : outcome] == "  "
        assert line[outcome] != " "


def test_a_column_of_sentences_is_folded_and_names_stay_whole():
    name, sentence = "a-name-of-" + "x" * 60, "never reached the target, and was stopped by hand"
    text = Table(
        "", "", ["run", "steps to target", "outcome"], [[name, "7", sentence]], [1]
    ).as_text()
    assert text.splitlines() == [
        "",
        f"{'run':<70}   steps  outcome",
        f"{'':<70}      to",
        f"{'':<70}  target",
        "-" * 113,
        f"{name}       7  never reached the target, and was",
        f"{'':<80}stopped by hand",
    ]


def test_json_is_for_programs(figure3_runs):
    values = json.loads(as_json(compare(read_runs(figure3_runs))))
    assert (values["baseline"], values["target"]) == ("Inception", pytest.approx(0.24))
    row = next(row for row in values["rows"] if row["recipe"] == "bn_x5")
    assert row["runs"][0]["name"] == "fast" and row["runs"][0]["status"] == "finished"
    assert row["steps"] == pytest.approx(140)
    assert row["ratio"]["low"] < row["ratio"]["value"] < row["ratio"]["high"]
    assert row["paper"]["steps_to_72_2"] == 2_100_000
    # Without an end: JSON has no infinity.
    sigmoid = next(row for row in values["rows"] if row["recipe"] == "bn_x5_sigmoid")
    assert sigmoid["ratio"]["high"] is None


def test_a_folder_that_cannot_be_written(figure3_runs, tmp_path):
    (tmp_path / "file").write_text("")
    runs = read_runs(figure3_runs)
    with pytest.raises(UserError, match=r"output: .* cannot be created"):
        write_report(compare(runs), runs, tmp_path / "file" / "report")


def test_a_whole_comparison_needs_no_torch(figure3_runs, tmp_path):
    program = (
        "import sys\n"
        "from bn_inception.report import *\n"
        "runs = read_runs(sys.argv[2:])\n"
        "write_report(compare(runs), runs, sys.argv[1])\n"
        "sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), *map(str, figure3_runs)]
    subprocess.run(command, check=True)
