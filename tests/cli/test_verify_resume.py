"""The check that a user runs on a machine of their own."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from small_runs import TINY

from bn_inception import UserError
from bn_inception.cli import verify_resume
from bn_inception.cli.main import dispatch
from bn_inception.cli.verify_resume import first_difference


@pytest.mark.timeout(600)
def test_a_resumed_run_is_called_equal(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["train.steps=14", "train.evaluate_every=6", "train.checkpoint_every=4"]
    arguments = [*TINY, "train.log_every=1", *short, f"data.root={images}"]
    assert dispatch(["verify-resume", "recipe=bn_x5", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "equal: weights" in printed
    assert "by two processes: equal within float tolerance" in printed


def test_a_run_too_short_to_be_killed_is_no_check(images: Path) -> None:
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
def test_what_cannot_be_divided_is_said_and_what_training_refuses_passed_on(
    capsys: pytest.CaptureFixture[str], given: list[str], reason: str
) -> None:
    with pytest.raises(UserError, match=r"data\.root"):
        dispatch(["verify-resume", *TINY, *given, "data.root=/nowhere"])
    assert f"by two processes: not tried, {reason}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("loss", "weights", "said"),
    [
        (1.0, "a", "equal: weights a"),
        (2.0, "a", "different, first at step 3: weights a undisturbed, a resumed"),
        (1.0, "b", "different, in the final weights only: weights a undisturbed, b resumed"),
    ],
)
def test_the_status_is_1_where_the_resumed_run_differs(
    loss: float,
    weights: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Trainings are stood in for: what a resumed one leaves is given."""

    def start(root: Path, *overrides: str) -> None:
        killed = root.name == "killed"
        (root / "run").mkdir(parents=True, exist_ok=True)
        record = {"step": 3, "loss": loss if killed else 1.0}
        (root / "run" / "metrics.jsonl").write_text(f"{json.dumps(record)}\n")

    monkeypatch.setattr(verify_resume, "_start", start)
    monkeypatch.setattr(verify_resume, "_finish", lambda process: None)
    monkeypatch.setattr(verify_resume, "_kill_after", lambda process, root: None)
    monkeypatch.setattr(verify_resume, "load", lambda path: {"network": path})
    monkeypatch.setattr(
        verify_resume, "weights_hash", lambda path: weights if "killed" in path.parts else "a"
    )
    status = dispatch(["verify-resume", "recipe=inception"])  # its dropout cannot be divided
    assert status == (0 if said.startswith("equal") else 1)
    assert said in capsys.readouterr().out


FIRST = [{"kind": "train", "step": n, "loss": float(n)} for n in range(1, 6)]


@pytest.mark.parametrize(
    ("second", "found"),
    [
        (FIRST, (None, 0.0)),
        ([*FIRST[:2], {**FIRST[2], "loss": 3.003}, {**FIRST[3], "loss": 16.0}], (3, 1e-3)),
        ([*FIRST[:2], {**FIRST[2], "step": 4}], (3, math.inf)),
        (FIRST[:3], (4, math.inf)),
    ],
)
def test_the_first_difference_is_found_and_measured(
    second: list[dict[str, Any]], found: tuple[int | None, float]
) -> None:
    assert first_difference(FIRST, second) == (found[0], pytest.approx(found[1]))
