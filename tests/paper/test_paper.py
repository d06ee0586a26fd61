"""The paper's facts agree with one another, where the paper agrees with itself."""

from bn_inception.paper import figure5, results


def outputs(modules):
    channels, result = 192, {}  # after pool2
    for module in modules:
        channels = result[module.name] = module.channels(channels)
    return result


def test_the_two_readings_give_the_printed_outputs_or_the_printed_projections():
    channels = [256, 320, 576, 576, 576, 576, 576, 1024, 1024, 1024]
    printed = dict(zip(figure5.MODULE_NAMES, channels, strict=True))
    assert outputs(figure5.modules()) == printed
    assert figure5.modules(128) == figure5.MODULES
    assert outputs(figure5.MODULES) == printed | {"4c": 608, "4d": 608, "4e": 1056}


def test_the_papers_statements_follow_from_figures_3_and_4():
    rows = results.FIGURE_3
    assert list(rows) == ["inception", "bn_baseline", "bn_x5", "bn_x30", "bn_x5_sigmoid"]
    assert set(results.CONTROLS) == {"inception_x5", "inception_sigmoid"}
    steps = {name: row.steps_to_72_2 or 0 for name, row in rows.items()}
    assert steps["bn_baseline"] < steps["inception"] / 2
    assert 14 < steps["inception"] / steps["bn_x5"] < 15
    assert steps["bn_x30"] > steps["bn_x5"] and rows["bn_x5_sigmoid"].steps_to_72_2 is None
    assert rows["bn_x30"].maximum_top1 == max(row.maximum_top1 for row in rows.values())
    assert rows["inception"].maximum_top1 == results.TARGET_TOP1
    errors = [row.top5_error for row in results.FIGURE_4 if row.title.startswith("BN")]
    assert errors == [0.0782, 0.0582, 0.049]
