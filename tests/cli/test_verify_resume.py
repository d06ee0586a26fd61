"""The check that a user runs on a machine of their own."""

from pathlib import Path

import pytest
from small_runs import TINY

from bn_inception import UserError
from bn_inception.cli.main import dispatch
from bn_inception.cli.verify_resume import first_difference


@pytest.mark.timeout(300)
def test_a_resumed_run_is_called_equal(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["train.steps=14", "train.evaluate_every=6", "train.checkpoint_every=4"]
    arguments = [*TINY, "train.log_every=1", *short, f"data.root={images}"]
    assert dispatch(["verify-resume", "recipe=bn_x5", *arguments]) == 0
    assert "equal: weights" in capsys.readouterr().out


def test_a_run_too_short_to_be_killed_is_no_check(images: Path) -> None:
    short = ["train.steps=4", "train.evaluate_every=4", "train.log_every=2", f"data.root={images}"]
    with pytest.raises(UserError, match=r"over before it had 9 records.*train\.steps="):
        dispatch(["verify-resume", *TINY, *short])


def test_what_training_refuses_is_passed_on(images: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root"):
        dispatch(["verify-resume", *TINY, "data.root=/nowhere"])


def test_the_first_step_that_differs_is_found() -> None:
    first = [{"step": n, "loss": float(n), "images_per_second": 1.0} for n in range(1, 6)]
    same = [{**record, "images_per_second": 2.0} for record in first]
    assert first_difference(first, same) is None
    assert first_difference(first, [*same[:2], {**same[2], "loss": 9.0}, *same[3:]]) == 3
    assert first_difference(first, same[:3]) == 4
