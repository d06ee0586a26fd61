"""The network for inference: BN Algorithm 2, against numpy in float64, and BN folded away."""

import copy

import numpy as np
import pytest
import torch
from evaluation.networks import pictures, refusal, small_network
from torch import Tensor

from bn_inception.network import (
    FirstConvolution,
    Nonlinearity,
    Normalization,
    PerActivationBatchNorm,
    folding,
    population_statistics,
    running_statistics,
    set_statistics,
)
from bn_inception.network.folding import fold, fold_checked
from bn_inception.network.normalization import MOMENTUM, BatchNorm


def batches(count: int = 3, size: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    # Batches of different brightness: the variance between batches is not in Algorithm 2's.
    return [torch.randn(size, 3, 16, 16, generator=generator) + k for k in range(count)]


@pytest.mark.parametrize("per_activation", [[], ["5a", "5b"]])
def test_every_layer_is_algorithm_2(per_activation: list[str]) -> None:
    """Inputs of every BN layer, recorded where all layers use the mini-batch's statistics."""
    # In float64, where only the algorithm can differ.
    network = small_network(per_activation=per_activation, dropout=0.3).double()
    reference = small_network(per_activation=per_activation, dropout=0.3).double()
    inputs: dict[str, list[np.ndarray]] = {}
    for name, module in reference.named_modules():
        if isinstance(module, BatchNorm) and not name.startswith("auxiliary"):
            seen = inputs.setdefault(name, [])
            module.train().register_forward_pre_hook(
                lambda _, given, seen=seen: seen.append(given[0].numpy())
            )
    with torch.no_grad():
        for images in batches():
            reference(images.double())

    found = population_statistics(network, (images.double() for images in batches()))
    for name, recorded in inputs.items():
        layer = found.get_submodule(name)
        axes = (0,) if isinstance(layer, PerActivationBatchNorm) else (0, 2, 3)
        means = np.stack([x.mean(axes).ravel() for x in recorded])
        variances = np.stack([x.var(axes).ravel() for x in recorded])
        m = recorded[0].size // means.shape[1]
        assert np.allclose(layer.running_mean, means.mean(0), rtol=1e-9, atol=1e-12)
        assert np.allclose(layer.running_var, m / (m - 1) * variances.mean(0), rtol=1e-9)


def test_the_original_is_left_alone_and_the_copy_can_be_trained_on() -> None:
    network = small_network(dropout=0.5)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = population_statistics(network, batches())
    torch.manual_seed(99)
    again = population_statistics(network, batches()).state_dict()
    assert all(torch.equal(again[key], value) for key, value in found.state_dict().items())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not found.training and not any(module.training for module in found.modules())
    assert {m.momentum for m in found.modules() if isinstance(m, BatchNorm)} == {MOMENTUM}
    # The parameters are the same, the auxiliary head's statistics too.
    for key, value in found.state_dict().items():
        if "running" not in key and "tracked" not in key:
            assert torch.equal(before[key], value)
        if key.startswith("auxiliary") and "running" in key:
            assert torch.equal(before[key], value)


def test_a_mini_batch_is_whole_whatever_training_makes_of_a_batch() -> None:
    network = small_network()
    expected = population_statistics(network, batches(2, 8))
    set_statistics(network, groups=4)
    found = population_statistics(network, batches(2, 8))
    for name, value in running_statistics(found).items():
        assert torch.equal(value, running_statistics(expected)[name])


def test_a_stop_is_noticed_between_two_mini_batches() -> None:
    asked = iter([False, True])
    read = iter(batches(3))
    assert population_statistics(small_network(), read, stopped=lambda: next(asked)) is None
    assert len(list(read)) == 1


def test_no_batch_is_refused_and_no_bn_is_left_as_it_is() -> None:
    assert "no mini-batch" in refusal(population_statistics, small_network(), [])
    plain = small_network(normalization=Normalization.none)
    found = population_statistics(plain, batches(1)).state_dict()
    assert all(torch.equal(value, found[key]) for key, value in plain.state_dict().items())


SETTINGS = [
    {},
    {"nonlinearity": Nonlinearity.sigmoid, "convolution_bias": True},
    {"first_convolution": FirstConvolution.full, "local_response_normalization": True},
    {"per_activation": ["5a", "5b"], "dropout": 0.1},
    {"normalization": Normalization.none},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_folded_network_gives_the_same_logits(settings: dict[str, object]) -> None:
    network = small_network(**settings)
    with torch.no_grad():
        logits = network(pictures())
        folded = fold(network)(pictures())
    assert logits.std() > 1e-3
    tolerance = 1e-5 * max(1.0, float(logits.abs().max()))
    torch.testing.assert_close(folded, logits, rtol=0, atol=tolerance)


def test_what_is_folded_is_gone_what_cannot_be_stays_and_the_original_is_left_alone() -> None:
    network = small_network(per_activation=["5b"])
    before = copy.deepcopy(network.state_dict())
    folded = fold(network)
    left = {name.split(".")[1] for name in folded.state_dict() if "running_mean" in name}
    assert left == {"5b"}
    assert folded.auxiliary is None and network.auxiliary is not None
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_folded_network_that_gives_other_logits_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, other = small_network(), small_network(seed=1)
    for size in (1, 1e5):  # the difference is relative to the largest logit
        network.classifier.weight.data *= size
        folded, difference = fold_checked(network)
        assert folded is not network and 0 < difference < 1e-5
    monkeypatch.setattr(folding, "fold", lambda network: other)
    kept, difference = fold_checked(network)
    assert kept is network and difference > 1e-3
