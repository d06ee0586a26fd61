import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_inception import UserError
from bn_inception.training.duration import steps, whole_steps

IMAGENET = 1_281_167


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (2000, 2000),
        (53.382, 53.382),
        ("2000", 2000),
        ("1 step", 1),
        ("  31e6 steps ", 31e6),
        ("8 epochs", 320_291.75),  # the paper's interval
        ("1 epoch", IMAGENET / 32),
        ("8/6 epochs", 8 / 6 * IMAGENET / 32),
        ("0.5 epochs", 0.5 * IMAGENET / 32),
        ("6400 images", 200),
        ("1e6 examples", 31250),
        ("1 image", 1 / 32),
    ],
)
def test_forms(duration: int | float | str, expected: float) -> None:
    found = steps(duration, batch=32, images=IMAGENET)
    assert found == pytest.approx(expected, rel=1e-12)
    assert whole_steps(duration, batch=32, images=IMAGENET) == max(1, round(expected))


@pytest.mark.parametrize(
    "duration",
    [
        0, -3, "0 epochs", "-1 epochs", "8 weeks", "8 s", "", "epochs", "1/0 epochs", "1/2/3", "e",
        True, math.nan, math.inf, "1e999", None,
    ],
)  # fmt: skip
def test_what_is_no_duration_is_named(duration: object) -> None:
    with pytest.raises(UserError, match=r"^train\.steps: .*; give a number of steps or a text"):
        steps(duration, batch=32, images=100, key="train.steps")  # type: ignore[arg-type]


@given(st.integers(1, 10**9), st.integers(1, 4096), st.integers(1, 10**7))
def test_a_number_of_steps_is_itself(count: int, batch: int, images: int) -> None:
    assert whole_steps(f"{count} steps", batch=batch, images=images) == count
    assert whole_steps(count, batch=batch, images=images) == count
