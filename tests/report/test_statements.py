import pytest

from bn_inception.paper.results import CONTROLS, FIGURE_3, FIGURE_4
from bn_inception.report import statements
from bn_inception.report.statements import STATEMENTS


def test_there_are_nine_by_number():
    assert [statement.number for statement in STATEMENTS] == list(range(1, 10))


def test_every_recipe_named_is_one():
    known = {*FIGURE_3, *CONTROLS, "bn_x5 with network.dropout=0.4"}
    needs = {str(need) for s in STATEMENTS for need in s.needs}
    assert needs <= known


def test_the_numbers_in_words_are_those_of_the_constants():
    by_number = {statement.number: statement for statement in STATEMENTS}
    assert f"{100 * statements.STEPS_SHARE_BN_BASELINE:.0f} %" in by_number[1].limit
    assert f"{100 * statements.STEPS_SHARE_BN_X5:.2f} %" in by_number[2].limit
    assert f"{100 * statements.SUBSTANTIAL_MARGIN:.1f} points" in by_number[4].limit
    assert f"{100 * statements.GAP_TOLERANCE:.0f} point" in by_number[8].limit
    limit = FIGURE_4[-1].top5_error + statements.TOP5_ERROR_TOLERANCE
    assert f"{100 * limit:.1f} %" in by_number[9].limit
    assert "1e-9" in by_number[7].limit and statements.INVARIANCE_TOLERANCE == 1e-9


@pytest.mark.parametrize(("number", "recipe"), [(1, "bn_baseline"), (2, "bn_x5")])
def test_the_papers_own_ratios_meet_the_criteria(number, recipe):
    inception = FIGURE_3["inception"].steps_to_72_2
    ratio = FIGURE_3[recipe].steps_to_72_2 / inception
    limit = {
        1: statements.STEPS_SHARE_BN_BASELINE,
        2: statements.STEPS_SHARE_BN_X5,
    }
    assert ratio < limit[number]
    assert f"{100 * ratio:.1f} %" in STATEMENTS[number - 1].paper
