"""`experiments/`: `studies.py` and `mnist_grid.py` on given runs, `judges_simulation.py` small."""

import json

import judges_simulation as simulation
import mnist_grid
import pytest
import studies
from report.conftest import write_run

from bn_inception.errors import UserError

RISING = [n / 100 for n in range(1, 21)]


@pytest.fixture
def runs(tmp_path):
    """Plain Inception ends better at factor 4; BN-x5 gets to its end at both in fewer steps."""

    def write(recipe, factor, curve):
        config = f"scale: {{name: cpu, rate_factor: {factor:g}}}\n"
        about = {"config": config, "planned_steps": 100 * len(curve)}
        return write_run(tmp_path / f"{recipe}-{factor:g}", recipe, curve, **about)

    high = [2 * value for value in RISING]
    return [
        write("inception", 2, RISING), write("bn_x5", 2, high[:10]),
        write("inception", 4, high), write("bn_x5", 4, [2 * value for value in high[:12]]),
        write("inception_x5", 4, [0.01] * 10),
    ]  # fmt: skip


def test_a_study_compares_at_each_value_and_with_the_best_plain_network(runs, tmp_path, capsys):
    studies.main("scale.rate_factor", str(tmp_path / "out" / "rate"), *map(str, runs))
    points = json.loads((tmp_path / "out" / "rate.json").read_text())["points"]
    assert [(point["value"], point["recipe"]) for point in points] == [
        (2, "inception"), (2, "bn_x5"), (4, "inception"), (4, "bn_x5"),
    ]  # fmt: skip
    for point in points[1::2]:
        assert point["ratio"]["value"] == pytest.approx(0.5, abs=0.05)
    # To the better plain network's end, 0.39, the first is too short, and the last is as before.
    assert points[1]["to_best"]["high"] in (None, float("inf"))
    assert points[3]["to_best"] == points[3]["ratio"]
    assert points[0]["to_best"] is points[2]["to_best"] is None
    table = (tmp_path / "out" / "rate.md").read_text()
    assert table == capsys.readouterr().out and table.count("BN-x5") == 2
    made = {path.suffix for path in (tmp_path / "out").iterdir()}
    assert made == {".json", ".md", ".png", ".svg"}


def test_runs_without_the_setting_are_named(runs, tmp_path):
    with pytest.raises(UserError, match=r"inception-2.* no network\.initialization"):
        studies.study("network.initialization", runs)


def test_of_equal_points_the_grid_takes_the_smaller_rate():
    rows = [
        {"network": network, "learning_rate": rate, "deviation": deviation,
         "plateau": 0.9 if network == "bn" and rate in (0.3, 1.0) else 0.5}
        for network in mnist_grid.NETWORKS
        for rate in mnist_grid.RATES
        for deviation in mnist_grid.DEVIATIONS[:1]
    ]  # fmt: skip
    plain, bn = mnist_grid.table(rows).split("bn: plateau")
    assert "| **50.00 %** | 50.00 %" in plain
    assert "| 50.00 % | **90.00 %** | 90.00 % |" in bn


STUDIES = 20


@pytest.mark.parametrize("number", [1, 2, 3, 4, 6, 8, 9])
def test_judges_are_seldom_wrong_and_more_seeds_decide_more(number):
    found = {
        (name, seeds): simulation.verdicts(number, truth, seeds, 5000, STUDIES)
        for name, truth in simulation.TRUTHS[number].items()
        for seeds in (1, 5)
    }
    # Of 20 studies three wrong ones have a chance of 8 % at a rate of 5 %; the draws are fixed.
    for (name, _), counts in found.items():
        assert simulation.wrong(name, counts) <= 2
    clear = "clearly true" if "clearly true" in simulation.TRUTHS[number] else "true"
    assert found[clear, 5]["holds"] >= max(0.9 * STUDIES, found[clear, 1]["holds"])
    refuted = [found["false", seeds]["does not hold"] for seeds in (1, 5)]
    assert refuted[1] >= max(0.5 * STUDIES, refuted[0])
