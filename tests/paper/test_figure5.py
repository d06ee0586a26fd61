import pytest

from bn_inception.errors import UserError
from bn_inception.paper import figure5

PRINTED = {row.name: row for row in figure5.ROWS}


def outputs(modules):
    channels, result = PRINTED["pool2"].output_channels, {}
    for module in modules:
        channels = result[module.name] = module.channels(channels)
    return result


def test_the_default_reading_gives_the_printed_output_channels_of_every_module():
    printed = {name: PRINTED[name].output_channels for name in figure5.MODULE_NAMES}
    assert outputs(figure5.modules()) == printed


def test_the_printed_projections_give_more_channels_than_printed_in_three_modules():
    assert figure5.modules(128) == figure5.MODULES
    differing = {
        name: channels
        for name, channels in outputs(figure5.MODULES).items()
        if channels != PRINTED[name].output_channels
    }
    assert differing == {"4c": 608, "4d": 608, "4e": 1056}


def test_the_readings_differ_in_the_projection_of_4c_and_4d_alone():
    pairs = zip(figure5.modules(96), figure5.modules(128), strict=True)
    assert [a.name for a, b in pairs if a != b] == ["4c", "4d"]


def test_printed_sides_follow_from_the_strides_but_for_3c_and_4e():
    side, wrong = 224, []
    for row in figure5.ROWS[:-1]:
        side //= row.stride
        if side != row.output_side:
            wrong.append(row.name)
            assert row.output_side == side * row.stride  # the input's side
    assert wrong == ["3c", "4e"]
    assert side == figure5.ROWS[-1].kernel == 7


def test_strides_agree_between_rows_and_modules():
    assert {m.name: m.stride for m in figure5.MODULES} == {
        name: PRINTED[name].stride for name in figure5.MODULE_NAMES
    }


@pytest.mark.parametrize("value", [0, 64, 97])
def test_another_pool_projection_is_refused(value):
    with pytest.raises(UserError, match=f"pool_projection is {value}.*96.*128"):
        figure5.modules(value)
