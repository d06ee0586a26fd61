import re

import pytest

from bn_inception.paper.results import CONTROLS, FIGURE_3
from bn_inception.report.statements import STATEMENTS


def test_there_are_nine_by_number_of_known_recipes():
    assert [statement.number for statement in STATEMENTS] == list(range(1, 10))
    known = {*FIGURE_3, *CONTROLS, "bn_x5 with network.dropout=0.4"}
    assert {str(need) for s in STATEMENTS for need in s.needs} <= known


@pytest.mark.parametrize(
    ("number", "measure", "words"),
    [
        (1, 0, "below 50 %"),
        (2, 0, "below 8.75 %"),
        (4, 0, "above 1.3 points"),
        (7, 0, "at most 1e-9"),
        (8, 0, "below 1 point"),
        (9, 2, "below 5.2 %"),
    ],
)
def test_the_limits_in_words_are_those_that_judge(number, measure, words):
    statement = STATEMENTS[number - 1]
    scale = 1 if number == 7 else 100
    assert words in statement.limit
    assert statement.measures[measure].limit * scale == pytest.approx(
        float(re.search(r"[0-9][0-9.e-]*", words)[0])
    )


def test_the_papers_own_ratios_meet_the_limits():
    for statement, recipe in zip(STATEMENTS, ("bn_baseline", "bn_x5"), strict=False):
        ratio = FIGURE_3[recipe].steps_to_72_2 / FIGURE_3["inception"].steps_to_72_2
        assert ratio < statement.measures[0].limit and f"{100 * ratio:.1f} %" in statement.paper
