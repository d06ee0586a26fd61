"""`experiments/rate_factor.py`: which factor a scale gets, and what it is judged by."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import rate_factor

EXPERIMENTS = Path(rate_factor.__file__).parent
STEPS = 3000


def write_run(folder: Path, factor: float, curve: list[float], status: str = "finished") -> Path:
    """A run folder with evenly spaced evaluations."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        f"recipe: {{name: inception}}\nscale: {{name: cpu, rate_factor: {factor}}}\n"
        f"optimizer: {{learning_rate: {0.0015 * factor}}}\nrun: {{seed: 0}}\n"
    )
    every = STEPS // len(curve)
    lines = [
        json.dumps({"kind": "validation", "step": every * (number + 1), "equivalent_steps": 1.0,
                    "loss": 1.0, "top1": top1, "top5": 1.0, "count": 100})
        for number, top1 in enumerate(curve)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    summary = {
        "recipe": "inception", "scale": "cpu", "seed": 0, "data": "tiny_imagenet", "classes": 10,
        "parameters": 1, "planned_steps": STEPS, "status": status, "step": every * len(curve),
        "images_seen": 1, "equivalent_steps": 1.0, "best": None, "milestones": [],
        "diverged": {"step": 7, "layer": "loss"} if status == "diverged" else None,
        "started_learning": True, "images_per_second": 1.0, "wall_seconds": 1.0,
        "replaced_images": {}, "unreadable_validation_images": 0,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def table(*folders: Path, output: Path) -> dict:
    subprocess.run(
        [sys.executable, str(EXPERIMENTS / "rate_factor.py"), "table", *map(str, folders),
         f"output={output}"], check=True, capture_output=True,
    )  # fmt: skip
    return json.loads(output.read_text())


def test_the_plateau_is_the_mean_of_the_last_tenth_and_three_at_least() -> None:
    steps = range(100, 3001, 100)
    curve = [(step, 0.5 if step > 2700 else 0.3) for step in steps]
    plateau, gain = rate_factor.judge(curve, 3000)
    assert (plateau, gain) == (pytest.approx(0.5), pytest.approx(0.2))
    # Of sixty evaluations it is six; the peak at the end does not count alone.
    curve = [(step, 0.9 if step == 3000 else 0.3) for step in range(50, 3001, 50)]
    plateau, gain = rate_factor.judge(curve, 3000)
    assert (plateau, gain) == (pytest.approx(0.4), pytest.approx(0.1))
    assert rate_factor.judge(curve[:2], 3000) == (None, None)
    # A run that is still under way has no last third.
    assert rate_factor.judge(curve[:30], 3000)[1] is None


def test_the_table_shows_every_point_and_the_factor_between_two_worse_ones(tmp_path: Path) -> None:
    heights = {2.0: 0.30, 4.0: 0.50, 8.0: 0.45}
    folders = [write_run(tmp_path / f"{f:g}", f, [height] * 10) for f, height in heights.items()]
    found = table(*folders, output=tmp_path / "found.json")
    assert [point["factor"] for point in found["points"]] == [4, 8, 2]  # best first
    assert found["verdict"].startswith("The factor is 4:")
    written = (tmp_path / "found.md").read_text()
    assert "| 4 | 0.006 | 50.00% | +0.00 | 3000 of 3000 | finished |" in written
    assert all(f"| {factor:g} |" in written for factor in heights)


def test_a_best_at_the_end_of_the_grid_asks_for_more(tmp_path: Path) -> None:
    points = [
        rate_factor.read_point(write_run(tmp_path / "2", 2, [0.3] * 10)),
        rate_factor.read_point(write_run(tmp_path / "4", 4, [0.4] * 10)),
        rate_factor.read_point(write_run(tmp_path / "8", 8, [0.5] * 10)),
    ]
    assert rate_factor.still_to_run(points) == [16]
    assert rate_factor.still_to_run(points[:2]) == [8]
    # One that diverges is worse than any, and one that was stopped does not count.
    diverged = write_run(tmp_path / "16", 16, [0.9] * 3, "diverged")
    assert rate_factor.verdict([*points, rate_factor.read_point(diverged)]).startswith(
        "The factor is 8"
    )
    stopped = write_run(tmp_path / "stopped", 16, [0.9] * 3, "interrupted")
    assert rate_factor.still_to_run([*points, rate_factor.read_point(stopped)]) == [16]


def test_where_nothing_learns_there_is_no_factor(tmp_path: Path) -> None:
    points = [
        rate_factor.read_point(write_run(tmp_path / f"{factor:g}", factor, [0.1] * 10))
        for factor in (0.5, 1, 2, 4, 8)
    ]
    while wanted := rate_factor.still_to_run(points):
        points += [
            rate_factor.read_point(write_run(tmp_path / f"{factor:g}", factor, [0.1] * 10))
            for factor in wanted
        ]
    assert rate_factor.verdict(points).startswith("No factor")


def test_the_sweep_goes_on_until_it_is_done_and_trains_nothing_twice(tmp_path: Path) -> None:
    heights = {2: 0.2, 4: 0.3, 8: 0.4, 16: 0.5, 32: 0.1}
    trained: list[float] = []

    def train(factor: float) -> None:
        trained.append(factor)
        write_run(tmp_path / rate_factor.run_name("cpu", factor), factor, [heights[factor]] * 10)

    points = rate_factor.sweep(tmp_path, "cpu", 1, train)
    assert trained == [2, 4, 8, 16, 32]
    assert rate_factor.verdict(points).startswith("The factor is 16")
    rate_factor.sweep(tmp_path, "cpu", 1, train)
    assert len(trained) == 5


def test_runs_of_other_recipes_are_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 2, [0.1] * 5)
    config = (folder / "config.yaml").read_text().replace("inception", "bn_x5")
    (folder / "config.yaml").write_text(config)
    done = subprocess.run(
        [sys.executable, str(EXPERIMENTS / "rate_factor.py"), "table", str(folder)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "bn_x5" in done.stderr and "\n" not in done.stderr.strip()
