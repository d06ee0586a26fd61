"""`experiments/judges_simulation.py`, at small size: the judges on studies whose truth is known."""

import judges_simulation as simulation
import pytest

STUDIES = 20


@pytest.mark.parametrize("number", [1, 2, 3, 4, 6, 8, 9])
def test_judges_are_seldom_wrong_and_more_seeds_decide_more(number):
    found = {
        (name, seeds): simulation.verdicts(number, truth, seeds, 5000, STUDIES)
        for name, truth in simulation.TRUTHS[number].items()
        for seeds in (1, 5)
    }
    # Of 20 studies three wrong ones have a chance of 8 % at a rate of 5 %; the draws are fixed.
    for (name, _), counts in found.items():
        assert simulation.wrong(name, counts) <= 2
    clear = "clearly true" if "clearly true" in simulation.TRUTHS[number] else "true"
    assert found[clear, 5]["holds"] >= max(0.9 * STUDIES, found[clear, 1]["holds"])
    refuted = [found["false", seeds]["does not hold"] for seeds in (1, 5)]
    assert refuted[1] >= max(0.5 * STUDIES, refuted[0])
