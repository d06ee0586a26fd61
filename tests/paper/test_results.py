import subprocess
import sys

from bn_inception.paper import results


def test_the_papers_statements_follow_from_figure_3():
    rows = results.FIGURE_3
    plain = rows["inception"].steps_to_72_2
    assert rows["bn_baseline"].steps_to_72_2 < plain / 2
    assert round(100 * rows["bn_x5"].steps_to_72_2 / plain) == 7
    assert round(plain / rows["bn_x5"].steps_to_72_2) in (14, 15)
    assert rows["bn_x30"].steps_to_72_2 > rows["bn_x5"].steps_to_72_2
    assert rows["bn_x30"].maximum_top1 == max(row.maximum_top1 for row in rows.values())
    assert rows["inception"].maximum_top1 == results.TARGET_TOP1
    assert rows["bn_x5_sigmoid"].steps_to_72_2 is None


def test_recipes_are_in_the_papers_order_and_the_controls_apart():
    assert list(results.FIGURE_3) == [
        "inception",
        "bn_baseline",
        "bn_x5",
        "bn_x30",
        "bn_x5_sigmoid",
    ]
    assert set(results.CONTROLS) == {"inception_x5", "inception_sigmoid"}


def test_rates_are_the_named_multiples_of_the_first():
    rates = {name: row.initial_learning_rate / 0.0015 for name, row in results.FIGURE_3.items()}
    assert {name: round(rate, 9) for name, rate in rates.items()} == {
        "inception": 1,
        "bn_baseline": 1,
        "bn_x5": 5,
        "bn_x30": 30,
        "bn_x5_sigmoid": 5,
    }


def test_steps_per_8_epochs():
    assert results.STEPS_PER_8_EPOCHS == 320_292


def test_figure_4_improves_downwards_for_bn_inception():
    errors = [row.top5_error for row in results.FIGURE_4 if row.title.startswith("BN")]
    assert errors == sorted(errors, reverse=True) == [0.0782, 0.0582, 0.049]


def test_facts_are_fractions():
    for row in results.FIGURE_4:
        assert 0 < row.top5_error < 1
    for row in results.FIGURE_3.values():
        assert 0 < row.maximum_top1 < 1


def test_the_facts_load_without_torch():
    program = (
        "import sys, bn_inception.paper.results, bn_inception.paper.figure5; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
