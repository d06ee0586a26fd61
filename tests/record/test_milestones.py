import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_inception.errors import UserError
from bn_inception.record import Milestone, Milestones

accuracies = st.lists(st.integers(0, 50).map(lambda correct: correct / 50), max_size=30)
targets_sets = st.sets(st.integers(1, 50).map(lambda correct: correct / 50), max_size=6)


@given(curve=accuracies, targets=targets_sets, spacing=st.integers(1, 1000))
def test_first_evaluation_at_or_above_and_the_one_before(curve, targets, spacing):
    milestones = Milestones(targets)
    for number, top1 in enumerate(curve, start=1):
        milestones.observe(number * spacing, top1)
    expected = []
    for target in sorted(targets):
        first = next((i for i, top1 in enumerate(curve, start=1) if top1 >= target), None)
        expected.append(
            Milestone(target)
            if first is None
            else Milestone(target, first * spacing, (first - 1) * spacing)
        )
    assert milestones.as_list() == expected


@given(curve=accuracies, targets=targets_sets, data=st.data())
def test_a_restored_run_goes_on_as_if_never_stopped(curve, targets, data):
    stop = data.draw(st.integers(0, len(curve)))
    whole, first = Milestones(targets), Milestones(targets)
    for step, top1 in enumerate(curve):
        whole.observe(step, top1)
    for step, top1 in enumerate(curve[:stop]):
        first.observe(step, top1)
    second = Milestones.from_state(first.state())
    for step, top1 in enumerate(curve[stop:], start=stop):
        second.observe(step, top1)
    assert second.state() == whole.state()


@pytest.mark.parametrize("targets", [[0.0], [-0.1], [1.1], [72.2], [float("nan")], [0.2, 0.2]])
def test_bad_targets_are_refused(targets):
    with pytest.raises(UserError, match="milestones: "):
        Milestones(targets)


def test_a_step_that_goes_back_is_a_programming_error():
    milestones = Milestones([0.5])
    milestones.observe(100, 0.1)
    with pytest.raises(ValueError, match="100"):
        milestones.observe(100, 0.6)
