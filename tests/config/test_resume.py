"""Which configurations may continue a run."""

import pytest

from bn_inception.config import compose
from bn_inception.config.resume import check_unchanged
from bn_inception.errors import UserError


@pytest.mark.parametrize("lacking", [True, False])
def test_a_key_that_makes_another_run_is_named_with_both_values(lacking):
    before = compose("train", [])
    before["batch"]["norm_group"] = 16
    if lacking:  # which makes it another one too
        del before["batch"]["norm_group"]
    was = "None" if lacking else "16"
    with pytest.raises(UserError, match=rf"batch\.norm_group was {was}, is 32"):
        check_unchanged(before, compose("train", []), "old")
