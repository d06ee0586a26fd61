import json
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bn_inception.record.environment import describe
from bn_inception.report import (
    claims_markdown,
    compare,
    judge,
    named_evaluations,
    read_runs,
    read_saved,
    report_page,
    write_report,
)


class Page(HTMLParser):
    """Tags, attributes and text of a page; complains about tags that do not match."""

    VOID = frozenset({"meta", "br", "use", "path"})

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)

    @property
    def text(self):
        return " ".join(self.texts)


@pytest.fixture
def page(figure3_runs, add_evaluation):
    plain = figure3_runs[2]
    (plain / "config.yaml").write_text(
        "data:\n  root: /home/jane/imagenet\nrun:\n  name: <plain>\n"
    )
    environment = describe("0123456789abcdef")
    (plain / "environment.json").write_text(json.dumps(environment))
    curve = [[crops, 0.2 + crops / 1000, 0.5] for crops in range(1, 145)]
    add_evaluation(plain, "144", 0.3, accuracy_by_crops=curve)
    runs = read_runs(figure3_runs)
    html = report_page(
        compare(runs),
        runs,
        verdicts=judge(runs, differences=(0.0, 0.0)),
        evaluations=named_evaluations(runs, []),
    )
    return html


def test_the_page_has_everything(page):
    text = Page(page).text
    for words in (
        "Steps to accuracy (Figure 3)",
        "diverged at step 1,234 in layer 4e.pool",
        "Validation accuracy by steps (Figure 2)",
        "Errors by crops and models (Figure 4)",
        "paper: BN-Inception multicrop",
        "21.99 %",
        "30.00 %",
        "Accuracy by the number of crops",
        "The paper's statements",
        "not tested",
        "bn-inception train recipe=bn_x5",
        "images/s",
        "data_fingerprint",
        "0123456789abcdef",
    ):
        assert words in text, words
    assert Page(page).tags.count("svg") == 2


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


def test_no_machine_is_named(page, tmp_path):
    assert "/home/jane" not in page
    assert ".../imagenet" in page
    assert str(tmp_path) not in page


def test_everything_is_escaped(make_run):
    (run,) = read_runs([make_run("plain", "inception", [0.1, 0.2])])
    odd = "<script>alert('&')</script>"
    run = replace(run, name=odd, config=odd, environment={"platform": odd}, overrides=(f"a={odd}",))
    page = report_page(compare([run]), [run], verdicts=judge([run]))
    assert "<script" not in page
    assert "script" not in Page(page).tags
    assert odd in "".join(Page(page).texts)


def test_equal_runs_give_equal_pages(figure3_runs, tmp_path):
    runs = read_runs(figure3_runs)
    first, *_ = write_report(compare(runs), runs, tmp_path / "first")
    second, *_ = write_report(compare(runs), runs, tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()
    # Without judging there is no empty section.
    assert "The paper's statements" not in first.read_text()


def test_an_ensemble_is_a_row(make_run, tmp_path):
    from report.conftest import evaluation_json

    path = tmp_path / "six.json"
    path.write_text(evaluation_json("144", 0.123, models=6))
    runs = read_runs([make_run("plain", "inception", [0.1])])
    folder = tmp_path / "report"
    page, markdown, data, *_ = write_report(
        compare(runs), runs, folder, ensembles=[read_saved(path)]
    )
    assert "12.30 %" in page.read_text() and "12.30 %" in markdown.read_text()
    (entry,) = json.loads(data.read_text())["evaluations"]
    assert (entry["name"], entry["models"], entry["top5_error"]) == ("six", 6, 0.123)
    assert str(tmp_path) not in data.read_text()


def test_sent_names_run_no_command_and_break_no_table(make_run):
    (run,) = read_runs([make_run("plain", "inception", [0.1, 0.2])])
    odd = "x; touch harmed\n| `a` <b> | [c](d)"
    run = replace(run, name=odd, path=Path(odd), summary=replace(run.summary, scale=odd, data=odd))
    verdicts = judge([run])
    commands = [command for verdict in verdicts for command in verdict.commands]
    trained = [command for command in commands if " train " in command]
    assert trained and all("\n" not in command for command in commands)
    for command in trained:
        # The words of the command, as bash reads them.
        script = f"set -- {command}; printf '%s\\0' \"$@\""
        words = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert f"scale={odd}" in words.stdout.split("\0")
    document = claims_markdown(verdicts)
    table = [line for line in document.splitlines() if line.startswith("|")]
    columns = len(re.findall(r"(?<!\\)\|", table[0]))
    assert all(len(re.findall(r"(?<!\\)\|", line)) == columns for line in table)
    assert "<b>" not in re.sub(r"```.*?```", "", document, flags=re.S).replace("\\<b>", "")
