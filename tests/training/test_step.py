"""One update: what it changes, what it must not."""

import math
import time

import pytest
import torch
import torch.nn.functional as F
from training.conftest import batch, network_of

from bn_inception.record.summary import Divergence
from bn_inception.training.learner import build_optimizer
from bn_inception.training.settings import OptimizerConfig
from bn_inception.training.step import (
    Diverged,
    StepResult,
    TrainingMeter,
    first_nonfinite_layer,
    require_finite,
    train_step,
)

CONFIG = OptimizerConfig(0.1, 0.0, 0.0, 1.0, 1)


def test_it_is_the_gradient_of_main_plus_three_tenths_of_the_auxiliary_loss():
    network, (images, labels) = network_of("bn_x5"), batch()
    twin = network_of("bn_x5")
    output = twin(images)
    loss = F.cross_entropy(output.main, labels)
    (loss + 0.3 * F.cross_entropy(output.auxiliary, labels)).backward()
    expected = {name: p.detach() - 0.05 * p.grad for name, p in twin.named_parameters()}

    result = train_step(network, build_optimizer(network, CONFIG), images, labels, rate=0.05)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name])
    assert result.loss.item() == pytest.approx(loss.item(), rel=1e-6)
    assert result.correct.item() == (output.main.argmax(1) == labels).sum().item()
    assert result.finite and not result.loss.requires_grad


def test_the_first_layer_that_overflows_is_named():
    network, (images, _) = network_of("inception"), batch()
    assert first_nonfinite_layer(network, images) == "loss"
    layer = dict(network.named_modules())["rows.4a.reduce_3x3.convolution"]
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] = math.inf
    assert first_nonfinite_layer(network, images) == "rows.4a.reduce_3x3.convolution"
    with pytest.raises(Diverged) as caught:
        require_finite(network, 7)
    assert caught.value.where == Divergence(7, "rows.4a.reduce_3x3.convolution")


def test_an_interval_averages_and_remembers_the_first_bad_step(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    meter, resumed = (TrainingMeter(torch.device("cpu"), 8) for _ in range(2))

    def add(meter, step, loss):
        value = torch.tensor(loss)
        meter.add(StepResult(value, torch.tensor(4), torch.isfinite(value)), step)

    add(meter, 1, 1.0)
    resumed.restore(meter.state())
    # What was restored took no time here.
    for each, speed in ((meter, 8.0), (resumed, 4.0)):
        add(each, 2, 2.0)
        now = 2.0
        with each.clock_stopped():
            now = 50.0
        record = each.record(2, 0.1)
        assert (record.step, record.equivalent_steps, record.learning_rate) == (2, 0.5, 0.1)
        assert (record.loss, record.top1, record.images_per_second) == (1.5, 0.5, speed)
        now = 0.0
    for step, loss in ((3, math.nan), (4, 4.0), (5, math.inf)):
        assert step == 3 or meter.first_nonfinite() == 3
        add(meter, step, loss)
    assert meter.first_nonfinite() == 3
