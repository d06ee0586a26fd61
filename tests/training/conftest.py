"""What happens in the middle of a run, done to it by the test."""

import itertools
import os
from collections.abc import Callable
from typing import Any

import pytest

from bn_inception.training import loop

At = Callable[..., None]


@pytest.fixture
def at_call(monkeypatch: pytest.MonkeyPatch) -> At:
    """A function that has `act` done before call `number` of a function that the loop calls.

    Given `rank`, in that process alone.
    """

    def arrange(
        number: int, act: Callable[[], object], name: str = "train_step", rank: int = 0
    ) -> None:
        original, calls = getattr(loop, name), itertools.count(1)

        def watched(*arguments: Any, **named: Any) -> Any:
            if next(calls) == number and os.environ.get("RANK", "0") == str(rank):
                act()
            return original(*arguments, **named)

        monkeypatch.setattr(loop, name, watched)

    return arrange
