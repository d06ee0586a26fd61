"""`experiments/rate_factor.py`: which factor a scale gets, and what it is judged by."""

import json
import sys

import pytest
import rate_factor
from report.conftest import write_run

from bn_inception.record.summary import RunStatus

STEPS = 3000


def write(folder, factor, curve, status="finished"):
    """A run folder with evenly spaced evaluations."""
    config = (
        f"recipe: {{name: inception}}\nscale: {{name: cpu, rate_factor: {factor}}}\n"
        f"optimizer: {{learning_rate: {0.0015 * factor}}}\nrun: {{seed: 0}}\n"
    )
    about = {"config": config, "status": RunStatus(status), "classes": 10, "planned_steps": STEPS}
    return write_run(folder, "inception", curve, every=STEPS // len(curve), **about)


def points(root, heights):
    """Runs of flat curves by their factors."""
    return [
        rate_factor.read_point(write(root / f"{factor:g}", factor, [height] * 10))
        for factor, height in heights.items()
    ]


def test_the_table_shows_every_point_and_the_factor_between_two_worse_ones(tmp_path, monkeypatch):
    points(tmp_path, {4: 0.30, 8: 0.50, 16: 0.45})
    folders = [str(tmp_path / name) for name in ("4", "8", "16")]
    output = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["rate_factor.py", "table", *folders, f"output={output}"])
    rate_factor.main()
    found = json.loads(output.read_text())
    assert [point["factor"] for point in found["points"]] == [8, 16, 4]  # best first
    assert found["verdict"].startswith("The factor is 8:")
    written = (tmp_path / "found.md").read_text()
    assert "| 8 | 0.012 | 50.00% | +0.00 | 3000 of 3000 | finished |" in written
    assert all(f"| {name} |" in written for name in (4, 8, 16))
    # Runs of another recipe are refused.
    config = (tmp_path / "4" / "config.yaml").read_text().replace("inception", "bn_x5")
    (tmp_path / "4" / "config.yaml").write_text(config)
    with pytest.raises((SystemExit, ValueError), match=r"^[^\n]*bn_x5[^\n]*$"):
        rate_factor.main()


def test_a_best_at_the_end_of_the_grid_asks_for_more(tmp_path):
    found = points(tmp_path, {4: 0.3, 8: 0.4, 16: 0.5})
    assert rate_factor.still_to_run(found) == [32]
    assert rate_factor.still_to_run(found[:2]) == [16]
    # One that diverges is worse than any, and one that was stopped does not count.
    for status in ("diverged", "interrupted"):
        folder = write(tmp_path / status, 32, [0.9] * 3, status)
        more = [*found, rate_factor.read_point(folder)]
        if status == "diverged":
            assert rate_factor.verdict(more).startswith("The factor is 16")
        else:
            assert rate_factor.still_to_run(more) == [32]


def test_the_sweep_goes_on_until_it_is_done_and_trains_nothing_twice(tmp_path):
    heights = {4: 0.3, 8: 0.4, 16: 0.5, 32: 0.6, 64: 0.1}
    trained = []

    def train(factor):
        trained.append(factor)
        write(tmp_path / rate_factor.run_name("cpu", factor), factor, [heights[factor]] * 10)

    found = rate_factor.sweep(tmp_path, "cpu", 1, train)
    assert trained == [4, 8, 16, 32, 64]
    assert rate_factor.verdict(found).startswith("The factor is 32")
    rate_factor.sweep(tmp_path, "cpu", 1, train)
    assert len(trained) == 5
