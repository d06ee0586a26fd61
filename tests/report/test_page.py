import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report.conftest import evaluated, write_evaluation

from bn_inception.record.environment import describe
from bn_inception.report.claims import judge
from bn_inception.report.comparison import compare
from bn_inception.report.evaluations import read_saved
from bn_inception.report.figures import by_crops, figure2
from bn_inception.report.page import report_page
from bn_inception.report.verdicts import claims_markdown

ODD = "<script>alert('&')</script>{{ 7 * 7 }}$x$-->"


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
        return " ".join(" ".join(self.texts).split())


def page_of(runs, verdicts=(), ensembles=()):
    comparison = compare(runs)
    drawings = filter(None, [*figure2(comparison), by_crops(comparison, ensembles)])
    return report_page(comparison, runs, list(drawings), ensembles, verdicts)


@pytest.fixture
def page(figure3_runs, tmp_path):
    runs = [replace(run, environment=describe("0123456789abcdef")) for run in figure3_runs]
    curve = [[crops, 0.2 + crops / 1000, 0.5] for crops in range(1, 145)]
    with_144 = evaluated(runs[2], ("144", 0.3), accuracy_by_crops=curve)
    runs[2] = replace(runs[2], evaluations=with_144.evaluations)
    six = write_evaluation(tmp_path / "six.json", "144", 0.123, models=6)
    return page_of(runs, judge(runs, differences=(0.0, 0.0)), [read_saved(six)])


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


def test_a_recipe_that_was_not_run_has_its_row(make_run):
    text = Page(page_of([make_run("plain", "inception", [0.1, 0.2])])).text
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


def test_hostile_names_are_inert(make_run):
    run = evaluated(make_run("plain", "inception", [0.1, 0.2]), ("144", 0.3))
    summary = replace(run.summary, scale=ODD, data=ODD)
    odd = replace(
        run,
        name=ODD,
        path=Path(ODD),
        summary=summary,
        config={ODD: ODD},
        environment={"platform": ODD, "command": [ODD]},
        overrides=(f"a={ODD}",),
    )
    page = page_of([odd, run], judge([odd, run]))
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
    document = claims_markdown(verdicts)
    table = [line for line in document.splitlines() if line.startswith("|")]
    columns = len(re.findall(r"(?<!\\)\|", table[0]))
    assert all(len(re.findall(r"(?<!\\)\|", line)) == columns for line in table)
    assert "<b>" not in re.sub(r"```.*?```", "", document, flags=re.S).replace("\\<b>", "")
