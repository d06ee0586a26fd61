from bn_inception.paper.results import CONTROLS, FIGURE_3, FIGURE_4
from bn_inception.report import statements
from bn_inception.report.statements import STATEMENTS


def test_there_are_nine_by_number_of_known_recipes():
    assert [statement.number for statement in STATEMENTS] == list(range(1, 10))
    known = {*FIGURE_3, *CONTROLS, "bn_x5 with network.dropout=0.4"}
    assert {str(need) for s in STATEMENTS for need in s.needs} <= known


def test_the_numbers_in_words_are_those_of_the_constants():
    limit = {statement.number: statement.limit for statement in STATEMENTS}
    assert f"{100 * statements.STEPS_SHARE_BN_BASELINE:.0f} %" in limit[1]
    assert f"{100 * statements.STEPS_SHARE_BN_X5:.2f} %" in limit[2]
    assert f"{100 * statements.SUBSTANTIAL_MARGIN:.1f} points" in limit[4]
    assert f"{100 * statements.GAP_TOLERANCE:.0f} point" in limit[8]
    top5 = FIGURE_4[-1].top5_error + statements.TOP5_ERROR_TOLERANCE
    assert f"{100 * top5:.1f} %" in limit[9]
    assert "1e-9" in limit[7] and statements.INVARIANCE_TOLERANCE == 1e-9


def test_the_papers_own_ratios_meet_the_limits():
    shares = {"bn_baseline": statements.STEPS_SHARE_BN_BASELINE}
    shares["bn_x5"] = statements.STEPS_SHARE_BN_X5
    for statement, (recipe, share) in zip(STATEMENTS, shares.items(), strict=False):
        ratio = FIGURE_3[recipe].steps_to_72_2 / FIGURE_3["inception"].steps_to_72_2
        assert ratio < share and f"{100 * ratio:.1f} %" in statement.paper
