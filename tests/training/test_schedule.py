"""Durations in steps, what is due when, the rate; and the optimizer that takes it."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import bn_inception
from bn_inception import UserError
from bn_inception.config import compose, run_config
from bn_inception.training.learner import build_optimizer
from bn_inception.training.schedule import Due, Schedule, steps

IMAGENET = 1_281_167
CONFIG = run_config(compose("train", ["recipe=inception", "scale=paper"]))
PLAIN = CONFIG.optimizer


def scheduled(length=100, batch=32, **optimizer):
    """Of a run on 1,000 images."""
    config = replace(
        CONFIG,
        batch=replace(CONFIG.batch, images=batch),
        train=replace(CONFIG.train, steps=length, evaluate_every=10, checkpoint_every=4),
        optimizer=replace(PLAIN, **optimizer),
    )
    return Schedule.of(config, 1000)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (2000, 2000),
        (53.382, 53.382),
        ("2000", 2000),
        ("1 step", 1),
        ("  31e6 steps ", 31e6),
        ("8 epochs", 320_291.75),  # the paper's interval
        ("8/6 epochs", 8 / 6 * IMAGENET / 32),
        ("6400 images", 200),
        ("1e6 examples", 31250),
        ("1 image", 1 / 32),
    ],
)
def test_forms(duration, expected):
    assert steps(duration, batch=32, images=IMAGENET) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "duration",
    [
        0, -3, "0 epochs", "-1 epochs", "8 weeks", "8 s", "", "epochs", "1/0 epochs", "1/2/3", "e",
        True, math.nan, math.inf, "1e999", None,
    ],
)  # fmt: skip
def test_what_is_no_duration_is_named(duration):
    with pytest.raises(UserError, match=r"^train\.steps: .*; give a number of steps or a text"):
        steps(duration, batch=32, images=100, key="train.steps")  # type: ignore[arg-type]


@given(st.integers(1, 10**9), st.integers(2, 4096))
def test_a_number_of_steps_is_itself_and_others_are_rounded(count, batch):
    assert scheduled(count, batch).steps == scheduled(f"{count} steps", batch).steps == count
    assert scheduled(f"{count} images", batch).steps == max(1, round(count / batch))


def test_what_is_due():
    schedule = replace(scheduled(25), log_every=5)
    due = {step: schedule.due(step) for step in range(1, 26)}
    assert {step for step in due if Due.LOG in due[step]} == {5, 10, 15, 20, 25}
    assert {step for step in due if Due.EVALUATE in due[step]} == {10, 20, 25}
    assert {step for step in due if Due.SAVE in due[step]} == {4, 8, 12, 16, 20, 24, 25}


def test_the_rate_is_a_staircase():
    rate = scheduled(learning_rate=0.0075, decay_factor=0.96, decay_every=53.382).learning_rate
    assert rate(0) == rate(53) == 0.0075
    assert rate(54) == 0.0075 * 0.96
    # The interval is not rounded: the hundredth stair begins at step 5338.2, not at 5300.
    assert rate(5338) == pytest.approx(0.0075 * 0.96**99)
    assert rate(5339) == pytest.approx(0.0075 * 0.96**100)


def test_warm_up_rises_to_the_staircase():
    stairs = {"learning_rate": 0.4, "decay_factor": 0.5, "decay_every": 10}
    rates = list(map(scheduled(**stairs, warmup="128 images").learning_rate, range(12)))
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[10] == 0.2
    assert scheduled(**stairs).learning_rate(0) == 0.4


@pytest.mark.parametrize("recipe", ["inception", "bn_baseline", "bn_x5", "bn_x30", "bn_x5_sigmoid"])
def test_only_weights_of_convolutions_and_linear_layers_decay(recipe):
    network = bn_inception.build_network(recipe, num_classes=10, width=0.125, image_size=32)
    decayed, rest = build_optimizer(network, PLAIN).param_groups
    assert (decayed["weight_decay"], rest["weight_decay"]) == (PLAIN.weight_decay, 0.0)
    ids = {id(parameter) for parameter in decayed["params"]}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            expected = isinstance(module, nn.Conv2d | nn.Linear) and name == "weight"
            assert (id(parameter) in ids) == expected
    count = len(decayed["params"]) + len(rest["params"])
    assert count == len(list(network.parameters()))


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.learning_rate=0.0", "optimizer.learning_rate=nan", "optimizer.momentum=1.0",
        "optimizer.weight_decay=-1e-4", "optimizer.decay_factor=0.0", "batch.norm_group=1",
        "batch.rate_factor=0", "batch.rate_factor=nan", "machine.timeout=0",
        "train.checkpoint_minutes=0", "train.log_every=0",
    ],
)  # fmt: skip
def test_impossible_values_are_named(override):
    with pytest.raises(UserError, match=f"^{override.partition('=')[0]}: "):
        run_config(compose("train", [override]))
