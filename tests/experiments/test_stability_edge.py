"""`experiments/stability_edge.py`: how a training's end is called, and what is written down."""

import json
import math
import sys

import pytest
import stability_edge
from small_runs import TINY

CHANCE = math.log(10)


def test_the_end_of_a_training_has_a_name():
    assert stability_edge.outcome([CHANCE] * 60, 10) == ("stuck", pytest.approx(CHANCE))
    falling = [CHANCE] * 250 + [0.97 * CHANCE] * 50
    assert stability_edge.outcome(falling, 10) == ("learns", pytest.approx(0.97 * CHANCE))
    assert stability_edge.outcome([CHANCE, 1e30, math.nan], 10)[0] == "nonfinite"
    assert stability_edge.outcome([1.0] * 60 + [math.inf], 10)[0] == "nonfinite"
    assert stability_edge.outcome([math.nan], 10) == ("nonfinite", None)


def test_trainings_are_written_down_and_not_made_twice(images, tmp_path, monkeypatch):
    output = tmp_path / "edge.json"
    monkeypatch.setattr(stability_edge, "HIGHEST", 1)
    given = [str(output), *TINY, f"data.root={images}", "networks=bn_baseline", "seeds=0",
             "steps=3"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["stability_edge.py", *given])
    stability_edge.main()
    written = json.loads(output.read_text())
    assert (written["kind"], written["scale"], written["steps"]) == ("stability_edge", "demo", 3)
    rows = {row["rate"]: row for row in written["rows"]}
    assert {0.0015, 0.003} >= set(rows) and all(row["steps"] == 3 for row in rows.values())
    assert "| rate | bn_baseline, seed 0 |" in output.with_suffix(".md").read_text()

    monkeypatch.delattr(stability_edge, "ShortTraining")
    stability_edge.main()
    assert json.loads(output.read_text()) == written
    monkeypatch.setattr(sys, "argv", ["stability_edge.py", *given[:-1], "steps=4"])
    with pytest.raises(Exception, match="steps=3"):
        stability_edge.main()
