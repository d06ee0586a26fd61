"""The check that a user runs on a machine of their own."""

import math

import pytest
from small_runs import TINY

from bn_inception import UserError
from bn_inception.cli.main import dispatch
from bn_inception.cli.verify_resume import alike, first_difference, same


@pytest.mark.timeout(600)
def test_a_resumed_run_is_called_equal(images, capsys):
    short = ["train.steps=14", "train.evaluate_every=6", "train.checkpoint_every=4"]
    arguments = [*TINY, "train.log_every=1", *short, f"data.root={images}"]
    assert dispatch(["verify-resume", "recipe=bn_x5", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "equal: weights" in printed
    assert "by two processes: equal within float tolerance" in printed


def test_a_run_too_short_to_be_killed_is_no_check(images):
    short = ["train.steps=4", "train.evaluate_every=4", "train.log_every=2", f"data.root={images}"]
    with pytest.raises(UserError, match=r"over before it had 9 records.*train\.steps="):
        dispatch(["verify-resume", *TINY, *short])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["recipe=inception", "batch.images=9"], "batch.images: 9 images cannot be divided"),
        (["recipe=inception", "network.dropout=0.4"], "dropout draws for each process"),
        (["recipe=bn_x5", "batch.synchronized=false"], "batch.synchronized=false makes other"),
    ],
)
def test_what_cannot_be_divided_is_said_and_what_training_refuses_passed_on(capsys, given, reason):
    with pytest.raises(UserError, match=r"data\.root"):
        dispatch(["verify-resume", *TINY, *given, "data.root=/nowhere"])
    assert f"by two processes: not tried, {reason}" in capsys.readouterr().out


FIRST = [{"kind": "train", "step": n, "loss": float(n)} for n in range(1, 6)]


@pytest.mark.parametrize(
    ("step", "weights", "said"),
    [
        (None, "a", "equal: weights a"),
        (3, "a", "different, first at step 3: weights a undisturbed, a resumed"),
        (None, "b", "different, in the final weights only: weights a undisturbed, b resumed"),
    ],
)
def test_runs_that_differ_are_not_called_equal(step, weights, said, capsys):
    second = [{**record, "loss": 2.0} if record["step"] == step else record for record in FIRST]
    assert same(FIRST, second, "a", weights) == said.startswith("equal")
    assert said in capsys.readouterr().out
    assert alike(FIRST, second) == (step is None)


@pytest.mark.parametrize(
    ("second", "found"),
    [
        (FIRST, (None, 0.0)),
        ([*FIRST[:2], {**FIRST[2], "loss": 3.003}, {**FIRST[3], "loss": 16.0}], (3, 1e-3)),
        ([*FIRST[:2], {**FIRST[2], "step": 4}], (3, math.inf)),
        (FIRST[:3], (4, math.inf)),
    ],
)
def test_the_first_difference_is_found_and_measured(second, found):
    assert first_difference(FIRST, second) == (found[0], pytest.approx(found[1]))
