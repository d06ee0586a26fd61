"""Looks into layers: what they record, and that a run is the same bits with them and without."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import Runs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from training.conftest import batch, network_of

from bn_inception import UserError
from bn_inception.config import compose, run_config
from bn_inception.paper.results import FIGURE_1_PERCENTILES
from bn_inception.training.learner import build_optimizer
from bn_inception.training.probe import CHANNEL, SATURATED, Probe, ProbeConfig
from bn_inception.training.step import losses, train_step

LAYERS = ("probe.layers=[conv1,5b,auxiliary.hidden]", "probe.every=3")
ROW = ["one_by_one", "reduce_3x3", "conv_3x3", "double_reduce", "double_3x3_1", "double_3x3_2",
       "projection"]  # fmt: skip
NAMES = ["conv1", "auxiliary.hidden", *(f"5b.{name}" for name in ROW)]


def runs_of(recipe, root, images):
    return Runs(root, images, f"recipe={recipe}", "train.steps=6", "train.evaluate_every=3",
                "train.log_every=3")  # fmt: skip


def assert_trained_alike(runs, one, other):
    states = [runs.state(name) for name in (one, other)]
    for key in ("network", "running_statistics"):
        assert states[0][key].keys() == states[1][key].keys()
        assert all(torch.equal(states[0][key][n], states[1][key][n]) for n in states[0][key])
    for kind in ("train", "validation"):
        assert runs.records(one, kind) == runs.records(other, kind)


@pytest.mark.parametrize("recipe", ["bn_baseline", "inception_sigmoid"])
def test_a_run_is_the_same_with_and_without(recipe, images, tmp_path):
    runs = runs_of(recipe, tmp_path, images)
    assert (runs.train("without"), runs.train("with", *LAYERS)) == (0, 0)
    assert_trained_alike(runs, "with", "without")
    assert runs.records("without", "probe") == []
    looks = runs.records("with", "probe")
    assert [(r["step"], r["layer"]) for r in looks] == [(s, n) for s in (1, 3, 6) for n in NAMES]
    assert all(r["equivalent_steps"] == r["step"] / 4 for r in looks)
    assert all((r["saturated"] is None) == (recipe == "bn_baseline") for r in looks)
    shown = EventAccumulator(str(runs.folder("with") / "tensorboard")).Reload()
    (*_, last) = shown.Scalars("probe/5b.conv_3x3/channel_p85")
    assert last.step == 2 and last.value == pytest.approx(looks[-5]["channel_p85"])


def test_a_killed_run_goes_on_with_no_other_record(images, tmp_path, at_call):
    def crash():
        raise MemoryError

    runs = runs_of("bn_x5", tmp_path, images)
    assert runs.train("whole", *LAYERS) == 0
    at_call(6, crash)
    with pytest.raises(MemoryError):
        runs.train("killed", *LAYERS, "train.checkpoint_every=2")
    assert runs.train("killed", *LAYERS, "train.checkpoint_every=2", "run.resume=must") == 0
    runs.assert_equal("killed", "whole")
    # Looks may begin where a run goes on: it is the same run.
    assert runs.train("later", "train.steps=3") == 0
    assert runs.train("later", *LAYERS, "run.resume=must") == 0
    assert_trained_alike(runs, "later", "whole")
    assert {r["step"] for r in runs.records("later", "probe")} == {6}


def test_of_several_processes_the_first_looks_at_its_own_images(images, tmp_path):
    runs = runs_of("bn_x5", tmp_path, images)
    assert runs.train_on(2, "without") == [0, 0]
    assert runs.train_on(2, "with", *LAYERS) == [0, 0]
    assert_trained_alike(runs, "with", "without")
    assert runs.train("alone", *LAYERS) == 0
    pairs = zip(runs.records("with", "probe"), runs.records("alone", "probe"), strict=True)
    two, one = next(pairs)
    # The gradient is the whole mini-batch's on both; the inputs are those of half of it.
    assert two["gradient_to_weight"] == pytest.approx(one["gradient_to_weight"], rel=0.05)
    assert two["p50"] != one["p50"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("probe.layers=[5b.conv3x3]", r"5b\.conv3x3: no layer .* conv1, conv2_reduce, conv2, 3a"
         r".*close: 5b\.conv_3x3"),
        ("probe.layers=[pool1]", "pool1: no layer"),
        ("probe.every=0", r"probe\.every: 0 is not 1 or more"),
    ],
)  # fmt: skip
def test_what_cannot_be_looked_into_is_one_line(given, said, images, tmp_path):
    runs = runs_of("bn_x5", tmp_path / "outputs", images)
    with pytest.raises(UserError, match=said):
        runs.train("bad", given)
    assert not runs.folder("bad").exists()


def test_a_compiled_network_is_refused_only_where_layers_are_named():
    Probe(ProbeConfig([]), network_of("bn_x5"), 8, compiled=True, silent=False)
    with pytest.raises(UserError, match=r"choose machine\.compile=false"):
        Probe(ProbeConfig(["conv1"]), network_of("bn_x5"), 8, compiled=True, silent=False)


@pytest.mark.parametrize("recipe", ["bn_baseline", "bn_x5_sigmoid"])
def test_a_look_is_of_the_inputs_and_the_gradient_of_that_update(recipe):
    network, (images, labels) = network_of(recipe), batch()
    before = copy.deepcopy(network)
    config = run_config(compose("train", [f"recipe={recipe}"])).optimizer
    probe = Probe(ProbeConfig(["conv1"], 5), network, 64, compiled=False, silent=False)
    with probe.watching(10):
        torch.manual_seed(3)
        train_step(network, build_optimizer(network, config), images, labels, 0.1)
    (record,) = probe.records

    # The same by other means: the row's own parts, and autograd alone.
    torch.manual_seed(3)
    losses(before, images, labels).total.backward()  # type: ignore[no-untyped-call]
    row: Any = before.rows["conv1"]
    inputs = row.normalization(row.convolution(row.depthwise(images))).detach().numpy()
    for prefix, values in (("channel_", inputs[:, CHANNEL]), ("", inputs)):
        for percentile in FIGURE_1_PERCENTILES:
            found = getattr(record, f"{prefix}p{percentile}")
            assert found == pytest.approx(np.percentile(values, percentile, method="nearest"))
        assert getattr(record, f"{prefix}mean") == pytest.approx(values.mean(), abs=1e-6)
        assert getattr(record, f"{prefix}deviation") == pytest.approx(values.std(), rel=1e-5)
    weight = row.convolution.weight
    ratio = float(weight.grad.norm() / weight.detach().norm())
    assert record.gradient_to_weight == pytest.approx(ratio, rel=1e-5)
    assert (record.layer, record.step, record.equivalent_steps) == ("conv1", 10, 20)
    if isinstance(row.nonlinearity, nn.Sigmoid):
        assert record.saturated == pytest.approx((abs(inputs) > SATURATED).mean())
        slope = 1 / (2 + np.exp(SATURATED) + np.exp(-SATURATED))
        assert slope == pytest.approx(0.1 / 4, rel=0.01)
    with probe.watching(11):
        train_step(network, build_optimizer(network, config), images, labels, 0.1)
    assert probe.records == []
