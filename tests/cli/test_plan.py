"""`bn-inception plan`: rows by hand where the rates are given, measured ones where they are not."""

import json

import pytest
from small_runs import TINY

from bn_inception.cli.main import dispatch
from bn_inception.paper.results import FIGURE_3

GIVEN = "plan.step_images_per_second=1000"


def planned(tmp_path, *arguments):
    file = tmp_path / "plan.json"
    assert dispatch(["plan", *arguments, f"output={file}"]) == 0
    return {row["run"]: row for row in json.loads(file.read_text())["rows"]}


def test_the_papers_longest_run_on_one_gpu_of_given_speed(tmp_path, capsys):
    (row,) = planned(tmp_path, "recipe=inception", GIVEN).values()
    # 31e6 updates of 32 images at 1000 a second, and 155 evaluations of 50,000 images at 3000.
    assert row["updates"] == 31_000_000
    assert row["hours"] == pytest.approx((31e6 * 0.032 + 155 * 50 / 3) / 3600)
    assert row["gpu_hours"] == row["hours"] and row["update_ms"] == pytest.approx(32)
    # More than 13,594,824 parameters, their gradients and momenta.
    assert 0.15 < row["device_gib"] < 10
    assert "asks for 1,000 images/s" in " ".join(capsys.readouterr().out.split())


def test_all_rows_the_ensemble_and_their_sum_in_80_columns(tmp_path, capsys):
    rows = planned(tmp_path, GIVEN)
    assert {*FIGURE_3, "inception_x5", "inception_sigmoid"} < rows.keys()
    total = rows.pop("all")
    assert rows["ensemble_6"]["updates"] == rows["bn_x30"]["updates"]
    for key in ("updates", "hours", "gpu_hours"):
        assert total[key] == pytest.approx(sum(row[key] for row in rows.values()))
    assert total["update_ms"] == pytest.approx(32)  # of every update alike, at the rate given
    assert total["device_gib"] == max(row["device_gib"] for row in rows.values())
    *printed, _ = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80


def test_eight_gpus_share_the_work(tmp_path):
    given = ("recipe=bn_x30", "batch=x8", "plan.processes=8", GIVEN)
    (row,) = planned(tmp_path, *given).values()
    (alone,) = planned(tmp_path, "recipe=bn_x30", GIVEN).values()
    # Each of eight holds 32 of 256 images, and an evaluation is divided among them.
    assert row["updates"] == 6_000_000 / 8 and row["update_ms"] == pytest.approx(32)
    assert row["gpu_hours"] == pytest.approx(8 * row["hours"])
    assert row["hours"] == pytest.approx(alone["hours"] / 8, rel=0.01)


def test_an_update_is_measured_where_no_rate_is_given(tmp_path, images, capsys):
    rows = planned(tmp_path, "plan.steps=2", "recipe=bn_x5", *TINY, f"data.root={images}")
    (row,) = rows.values()
    assert row["updates"] == 12
    assert row["update_ms"] > 0 and row["hours"] > 0
    assert "measured here" in capsys.readouterr().out
