"""Which configurations may continue a run."""

import pytest

from bn_inception.config import compose
from bn_inception.config.resume import check_unchanged
from bn_inception.errors import UserError


def test_a_run_started_before_the_batch_had_groups_can_be_resumed() -> None:
    now = compose("train", [])
    before = compose("train", [])
    for key in ("norm_group", "synchronized", "rate_factor"):
        del before["batch"][key]
    del before["optimizer"]["warmup"]
    check_unchanged(before, now, "old")
    with pytest.raises(UserError, match=r"batch\.norm_group was 32, is 16"):
        check_unchanged(before, compose("train", ["batch.norm_group=16"]), "old")
