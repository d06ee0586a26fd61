"""Which configurations may continue a run."""

import pytest

from bn_inception.config import compose
from bn_inception.config.resume import check_unchanged
from bn_inception.errors import UserError


def test_a_key_that_makes_another_run_is_named_with_both_values() -> None:
    before, now = compose("train", []), compose("train", ["batch.norm_group=16"])
    with pytest.raises(UserError, match=r"batch\.norm_group was 32, is 16"):
        check_unchanged(before, now, "old")


def test_a_configuration_that_lacks_a_key_is_another_one() -> None:
    before = compose("train", [])
    del before["batch"]["norm_group"]
    with pytest.raises(UserError, match=r"batch\.norm_group was None, is 32"):
        check_unchanged(before, compose("train", []), "old")
