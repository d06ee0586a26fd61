"""What `compare` and `claims` print and write: tables, page, Markdown and JSON."""

import json
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report.conftest import evaluated, write_evaluation

from bn_inception.errors import UserError
from bn_inception.record.environment import describe
from bn_inception.report.claims import (
    claims_json,
    claims_markdown,
    claims_text,
    judge,
    write_claims,
)
from bn_inception.report.comparison import compare
from bn_inception.report.page import write_report
from bn_inception.report.runs import read_evaluation, read_run
from bn_inception.report.statements import STATEMENTS
from bn_inception.report.tables import as_json, figure3
from bn_inception.table import Table

ODD = "<script>alert('&')</script>{{ 7 * 7 }}$x$-->"


class Page(HTMLParser):
    """Tags, attributes and text of a page; complains about tags that do not match."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def page_of(folder, runs, verdicts=(), ensembles=()):
    page, *_ = write_report(compare(runs), runs, folder, ensembles, verdicts)
    return page.read_text("utf-8")


@pytest.fixture
def page(figure3_runs, tmp_path):
    runs = [replace(run, environment=describe("0123456789abcdef")) for run in figure3_runs]
    curve = [[crops, 0.2 + crops / 1000, 0.5] for crops in range(1, 145)]
    with_144 = evaluated(runs[2], ("144", 0.3), accuracy_by_crops=curve)
    runs[2] = replace(runs[2], evaluations=with_144.evaluations)
    six = write_evaluation(tmp_path / "six.json", "144", 0.123, models=6)
    verdicts = judge(runs, differences=(0.0, 0.0))
    return page_of(tmp_path / "report", runs, verdicts, [read_evaluation(six)])


def test_the_page_begins_with_the_conclusion_and_has_everything(page):
    parsed = Page(page)
    words = (
        "Held, 2 of 9 statements of the paper: “Five times the rate”, “Invariance to ",
        "Did not hold, ",
        "By how much: BN-x5 reached 24.0 % in ",
        "Steps to accuracy (Figure 3)",
        "Controls, changed settings and members of the ensemble: 2",
        "diverged at step 1,234 in layer 4e.pool",
        "Validation accuracy by steps (Figure 2)",
        "Accuracy by the number of crops",
        "Errors by crops and models (Figure 4)",
        "ensemble of 6",
        "12.3 ±1.0",
        "paper: BN-Inception 1",
        "21.99",
        "The paper's statements",
        "not tested",
        "bn-inception train recipe=bn_x5",
        "What all runs share",
        "images/s",
        "0123456789abcdef",
    )
    places = [parsed.text.find(word) for word in words]
    assert -1 not in places, words[places.index(-1)]
    assert places == sorted(places) or places[:3] == sorted(places[:3])
    assert parsed.tags.count("svg") == 2
    # Statements and runs are folded away, and what every run shares is said once.
    assert ("open", None) not in parsed.attributes
    assert parsed.text.count("images/s") == 1


def test_a_recipe_that_was_not_run_has_its_row(make_run, tmp_path):
    text = Page(page_of(tmp_path, [make_run("plain", "inception", [0.1, 0.2])])).text
    assert "BN-x30 - - 74.8 % - - 2.7e6 - - - not run" in text
    # Without judging there is no empty section.
    assert "The paper's statements" not in text


def test_nothing_is_fetched_and_nothing_runs(page):
    parsed = Page(page)
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(parsed.tags)
    for name, value in parsed.attributes:
        assert name not in ("src", "srcset", "action") and not name.startswith("on")
        if name in ("href", "xlink:href"):
            assert value.startswith("#")
    # A namespace is a name; everything else that looks like an address would be one.
    rest = re.sub(r'xmlns(:\w+)?="http://www\.w3\.org/[^"]*"', "", page)
    assert "http:" not in rest and "https:" not in rest and "@import" not in rest
    assert not re.search(r"url\((?!#)", rest)
    assert "default-src 'none'" in page


def test_hostile_names_are_inert(make_run, tmp_path):
    run = evaluated(make_run("plain", "inception", [0.1, 0.2]), ("144", 0.3))
    summary = replace(run.summary, scale=ODD, data=ODD)
    odd = replace(
        run, name=ODD, path=Path(ODD), summary=summary, config={ODD: ODD},
        environment={"platform": ODD, "command": [ODD]},
        overrides=(f"a={ODD}",),
    )  # fmt: skip
    page = page_of(tmp_path, [odd, run], judge([odd, run]))
    assert "<script" not in page and "-->{{" not in page
    parsed = Page(page)
    assert "script" not in parsed.tags and ODD in parsed.text


def test_sent_names_run_no_command_and_break_no_table(make_run):
    run = make_run("plain", "inception", [0.1, 0.2])
    odd = "x; touch harmed\n| `a` <b> | [c](d)"
    run = replace(run, name=odd, path=Path(odd), summary=replace(run.summary, scale=odd, data=odd))
    verdicts = judge([run])
    commands = [command for judged in verdicts for command in judged.leading.commands]
    trained = [command for command in commands if " train " in command]
    assert trained and all("\n" not in command for command in commands)
    for command in trained:
        # The words of the command, as bash reads them.
        script = f"set -- {command}; printf '%s\\0' \"$@\""
        words = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert f"scale={odd}" in words.stdout.split("\0")
    compared = figure3(compare([run, replace(run, overrides=(odd,))]))
    for document in (claims_markdown(verdicts), compared.as_markdown()):
        table = [line for line in document.splitlines() if line.startswith("|")]
        columns = len(re.findall(r"(?<!\\)\|", table[0]))
        assert all(len(re.findall(r"(?<!\\)\|", line)) == columns for line in table)
        assert "<b>" not in re.sub(r"```.*?```", "", document, flags=re.S).replace("\\<b>", "")


def test_text_and_markdown_say_the_same(figure3_runs):
    table = figure3(compare(figure3_runs))
    rows = {row[0]: row for row in table.rows}
    assert rows["BN-x5"][5:7] == ("140", "2.1e6") and rows["BN-x5"][8] == "6.8 %"
    assert rows["BN-x5"][9].startswith("33.3 % / ") and rows["BN-x5-Sigmoid"][6] == "never"
    text, markdown = table.as_text(175), table.as_markdown()
    lead = "Target: 24.0 % top-1, the plateau of Inception less one point"
    assert lead in " ".join(text.split()) and lead in markdown
    for cell in {cell for row in table.rows for cell in row}:
        assert set(cell.split()) <= set(text.split()) and f"| {cell} |" in markdown
    cells = {line.count("|") for line in markdown.splitlines() if line.startswith("|")}
    assert cells == {12}
    assert max(map(len, text.splitlines())) <= 175
    # Too wide for a terminal of 80 columns: a paragraph a row.
    narrow = table.as_text(80)
    assert max(map(len, narrow.splitlines())) <= 80
    for row in table.rows:
        assert f"\n{row[0]}\n" in narrow
        words = {word.rstrip(";") for cell in row if cell != "-" for word in cell.split()}
        assert words <= {word.rstrip(";") for word in narrow.split()}


def test_a_table_fits_and_names_stay_whole():
    name, sentence = "a-name-of-" + "x" * 30, "never reached the target, and was stopped by hand"
    table = Table(["run", "steps to target", "outcome"], [[name, "7", sentence]], [1])
    assert table.as_text(75).splitlines() == [
        f"{'run':<40}   steps  outcome",
        f"{'':<40}      to",
        f"{'':<40}  target",
        "-" * 75,
        f"{name}       7  never reached the target,",
        f"{'':<50}and was stopped by hand",
    ]
    assert len(table.as_text(175).splitlines()) == 5


def test_json_is_for_programs(figure3_runs, tmp_path):
    six = read_evaluation(write_evaluation(tmp_path / "six.json", "144", 0.123, models=6))
    text = as_json(compare(figure3_runs), [six])
    values = json.loads(text)
    assert (values["baseline"], values["target"]) == ("Inception", pytest.approx(0.24))
    rows = {row["recipe"]: row for row in values["rows"]}
    fast = rows["bn_x5"]
    assert fast["runs"][0]["name"] == "fast" and fast["runs"][0]["status"] == "finished"
    assert fast["steps"] == pytest.approx(140) and fast["kind"] == "recipe"
    assert fast["ratio"]["low"] < fast["ratio"]["value"] < fast["ratio"]["high"]
    assert fast["paper"]["steps_to_72_2"] == 2_100_000
    # Without an end: JSON has no infinity.
    assert rows["bn_x5_sigmoid"]["ratio"]["high"] is None
    (entry,) = values["evaluations"]
    assert (entry["name"], entry["models"], entry["top5_error"]) == ("six", 6, 0.123)
    assert str(tmp_path) not in text


def test_a_folder_that_cannot_be_written(figure3_runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output: .* cannot be created"):
        write_report(compare(figure3_runs), figure3_runs, tmp_path / "file" / "report")


@pytest.fixture
def verdicts(figure3_runs):
    return judge(figure3_runs, differences=(0, 0))


def test_verdicts_as_text_markdown_and_json_say_all(verdicts, tmp_path):
    text, markdown = claims_text(verdicts), claims_markdown(verdicts)
    for statement in STATEMENTS:
        assert statement.claim.split()[-1] in text and statement.title in markdown
        assert statement.limit in markdown and statement.measured in markdown
    for words in ("not tested", "holds", "diverged at step 1,234"):
        assert words in text and words in markdown
    assert "2 hold, 0 not, 4 undecided, 3 not tested" in text
    for judged in verdicts:
        for command in judged.leading.commands:
            assert f"   $ {command}" in text.splitlines()
    long = [line for line in text.splitlines() if len(line) > 80]
    assert all("$ " in line or str(tmp_path) in line for line in long)
    values = json.loads(claims_json(verdicts))["verdicts"]
    assert [value["number"] for value in values] == list(range(1, 10))
    assert values[4]["decision"] == "holds" and values[4]["setting"] == "scale=cpu 100 classes"
    assert values[0]["commands"] and values[0]["limit"] and values[1]["evidence"][0]["says"]
    paths = write_claims(verdicts, tmp_path / "new")
    assert [path.name for path in paths] == ["claims.md", "claims.json"]
    # An absolute path is neither linked nor shown.
    assert "  - **control**: plateau" in markdown
    assert all(str(tmp_path) not in path.read_text() for path in paths)


def test_the_evidence_is_linked_from_where_the_file_lies(figure3_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verdicts = judge([read_run("outputs/control")])
    markdown, _ = write_claims(verdicts, Path("results/mine"))
    assert "[control](../../outputs/control)" in markdown.read_text()
