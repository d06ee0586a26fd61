import math
import re

import pytest
import torch
from evaluation.networks import refusal, row_outputs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bn_inception.network import (
    FirstConvolution,
    Inception,
    NetworkConfig,
    Normalization,
    PerActivationBatchNorm,
)
from bn_inception.network.inception import scaled
from bn_inception.network.settings import MINIMUM_IMAGE_SIZE, MINIMUM_LAST_GRID, geometry
from bn_inception.paper import figure5, results

BN = nn.modules.batchnorm._BatchNorm
FULL = {"first_convolution": FirstConvolution.full}
SIZES = st.integers(MINIMUM_IMAGE_SIZE, 1024)


@pytest.mark.parametrize(
    ("readings", "at_inference", "in_training"),
    [
        ({}, 11_188_288, 13_605_672),
        ({"normalization": Normalization.none}, 11_178_336, 13_594_824),
        ({"pool_projection": 128}, 11_278_528, None),
        ({"pool_projection": 128, **FULL}, 11_285_224, None),
        # pytorchcv's asserted count, and Cadene's bninception.py
        ({"pool_projection": 128, "convolution_bias": True, **FULL}, 11_295_240, None),
        (FULL, 11_194_984, None),
    ],
)
def test_parameters(on_meta, readings, at_inference, in_training):
    def parameters(network: nn.Module) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    assert parameters(on_meta(auxiliary_head=False, **readings)) == at_inference
    if in_training is not None:
        assert parameters(on_meta(**readings)) == in_training
        assert in_training == pytest.approx(results.PARAMETERS, abs=0.05e6)


@pytest.mark.parametrize("pool_projection", [96, 128])
def test_output_shapes_of_every_row_at_224(on_meta, pool_projection):
    network = on_meta(pool_projection=pool_projection)
    logits, rows = row_outputs(network, torch.empty(2, 3, 224, 224, device="meta"))
    assert logits.main.shape == logits.auxiliary.shape == (2, 1000)
    shapes = {name: tuple(maps.shape[1:]) for name, maps in rows.items() if maps.dim() == 4}
    # Figure 5 as printed; for 3c and 4e, which print their input's side, half of it.
    names = ["conv1", "pool1", "conv2_reduce", "conv2", "pool2", *figure5.MODULE_NAMES]
    channels = [64, 64, 64, 192, 192, 256, 320, 576, 576, 576, 576, 576, 1024, 1024, 1024]
    sides = [112, 56, 56, 56, 28, 28, 28, 14, 14, 14, 14, 14, 7, 7, 7]
    expected = {name: (c, s, s) for name, c, s in zip(names, channels, sides, strict=True)}
    if pool_projection == 128:
        expected |= {"4c": (608, 14, 14), "4d": (608, 14, 14), "4e": (1056, 7, 7)}
    assert shapes == expected


def test_the_default_network_costs_1_935_billion_multiply_adds(on_meta):
    with FlopCounterMode(display=False) as counter:
        on_meta().eval()(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() == 2 * 1_934_857_216


def call_order(network: Inception) -> list[tuple[nn.Module, torch.Tensor, torch.Tensor]]:
    """The leaf modules in the order of their calls, with input and output."""
    calls: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []
    for module in network.modules():
        if not list(module.children()) and not isinstance(module, nn.Identity):
            module.register_forward_hook(
                lambda module, inputs, output: calls.append((module, inputs[0], output))
            )
    size = network.config.image_size
    network(torch.empty(2, 3, size, size, device="meta"))
    return calls


def test_batch_normalization_before_every_nonlinearity_and_nowhere_else(on_meta, recipe):
    calls = call_order(on_meta(10, **recipe))
    batch = recipe.get("normalization") is not Normalization.none
    counts = {"nonlinearities": 0, "normalizations": 0}
    for position, (module, inputs, output) in enumerate(calls):
        before, _, before_output = calls[position - 1]
        if isinstance(module, nn.ReLU | nn.Sigmoid):
            counts["nonlinearities"] += 1
            assert before_output is inputs
            assert isinstance(before, BN if batch else nn.Conv2d | nn.Linear)
        if isinstance(module, BN):
            counts["normalizations"] += 1
            after, after_inputs, _ = calls[position + 1]
            assert before_output is inputs and output is after_inputs
            assert isinstance(before, nn.Conv2d | nn.Linear)
            assert isinstance(after, nn.ReLU | nn.Sigmoid)
    # 3 in the stem, 7 in a module, 5 in 3c and 4e, 2 in the auxiliary head.
    units = 3 + 8 * 7 + 2 * 5 + 2
    assert counts == {"nonlinearities": units, "normalizations": units if batch else 0}


def test_local_response_normalization_is_torchs_on_grey_levels(small):
    layer = small(local_response_normalization=True).double().rows["lrn1"]
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 16, 5, 4, dtype=torch.float64, generator=generator)
    expected = nn.functional.local_response_norm(127.5 * maps, 5, alpha=1e-4, beta=0.75, k=1.0)
    torch.testing.assert_close(layer(maps), expected / 127.5)
    assert (layer(maps) / maps).mean() < 0.8  # it does something
    assert not layer.state_dict()


def test_every_parameter_gets_a_finite_gradient(small, recipe):
    network = small(**recipe)
    torch.manual_seed(0)
    logits = network(torch.randn(8, 3, 32, 32))
    labels = torch.arange(8) % 5
    loss = nn.functional.cross_entropy(logits.main, labels)
    (loss + 0.3 * nn.functional.cross_entropy(logits.auxiliary, labels)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("trained", "height", "width"),
    [(32, 40, 56), (32, 33, 47), (224, 225, 225), (224, 250, 250), (224, 320, 224)],
)
def test_evaluation_takes_other_image_sizes(on_meta, trained, height, width):
    network = on_meta(image_size=trained, width=0.25).eval()
    assert network(torch.empty(1, 3, height, width, device="meta")).shape == (1, 1000)


def test_named_rows_hold_every_parameter_once_in_forward_order(small):
    network = small()
    rows = [parameter for _, row in network.named_rows() for parameter in row.parameters()]
    assert {id(p) for p in rows} == {id(p) for p in network.parameters()}
    assert len(rows) == len(list(network.parameters()))
    names = [name for name, _ in network.named_rows()]
    assert list(row_outputs(network, torch.randn(2, 3, 32, 32))[1]) == names
    assert names[names.index("4d") + 1] == "auxiliary" and names[-1] == "classifier"


def test_per_activation_normalization_in_the_named_modules_alone(on_meta):
    network = on_meta(per_activation=["5a", "4e"])
    for path, module in network.named_modules():
        if isinstance(module, BN) and not path.startswith("auxiliary"):
            named = path.split(".")[1] in ("4e", "5a")
            assert isinstance(module, PerActivationBatchNorm) == named, path
    # 4e halves the grid in the last convolution of each branch.
    weights = {name: p.numel() for name, p in network.named_parameters()}
    assert weights["rows.4e.reduce_3x3.normalization.weight"] == 128 * 14 * 14
    assert weights["rows.4e.conv_3x3.normalization.weight"] == 192 * 7 * 7
    assert weights["rows.4e.double_3x3_1.normalization.weight"] == 256 * 14 * 14
    assert weights["rows.5a.projection.normalization.weight"] == 128 * 7 * 7


def test_width_scales_every_hidden_width(on_meta):
    cases = {(64, 1.0): 64, (352, 0.25): 88, (32, 0.01): 4, (96, 0.1): 8, (160, 0.35): 56}
    assert {case: scaled(*case) for case in cases} == cases
    network = on_meta(10, width=0.5)
    assert network.classifier.in_features == 512
    assert network.rows["3a"].conv_3x3.convolution.out_channels == 32
    assert network.auxiliary.hidden.out_features == 384
    assert network.rows["conv1"].depthwise.out_channels == 24


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"dropout": 1.0}, r"dropout is 1\.0.*below 1"),
        ({"dropout": -0.1}, r"dropout is -0\.1"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"width": 0.0}, r"width is 0\.0"),
        ({"width": float("inf")}, "width is inf"),
        ({"initial_weight_gain": 0.0}, r"initial_weight_gain is 0\.0"),
        ({"pool_projection": 64}, "pool_projection is 64.*96.*128"),
        ({"image_size": 8}, "image_size is 8.*13"),
        ({"per_activation": ["5c"]}, "'5c'.*3a, 3b"),
        (
            {"per_activation": ["5a"], "normalization": Normalization.none},
            "per_activation.*normalization none",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(given_settings, message):
    assert re.search(message, refusal(NetworkConfig, **given_settings))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 1, 32, 32), "(2, 1, 32, 32)"), ((2, 3, 48, 48), "train at the configured image_size")],
)
def test_images_that_do_not_fit_are_refused(small, shape, message):
    assert message in refusal(small(), torch.randn(shape))


def test_the_small_image_rule():
    large, small = (2, 2, 2), (1, 2, 2)
    strides = {224: large, 97: large, 96: small, 49: small, 32: (1, 2, 1), 16: (1, 1, 1)}
    assert {size: geometry(size)[0] for size in strides} == strides


@given(SIZES, SIZES)
def test_grids_are_large_enough_and_no_stride_is_lost_without_need(first, second):
    small, large = sorted((first, second))
    strides, sides = geometry(small)
    assert sides["5a"] == sides["5b"] >= MINIMUM_LAST_GRID
    assert sides["4d"] >= 5  # the auxiliary head's pooling
    total = math.prod(strides)
    assert total <= math.prod(geometry(large)[0])
    # One stride more would leave the last modules fewer than 4 positions a side.
    assert total == 8 or sides["5b"] < 2 * MINIMUM_LAST_GRID - 1


@settings(max_examples=10, deadline=None)
@given(st.integers(MINIMUM_IMAGE_SIZE, 300))
def test_the_network_has_these_grids(image_size):
    with torch.device("meta"):
        network = Inception(NetworkConfig(image_size=image_size, width=0.25), 10)
        images = torch.empty(2, 3, image_size, image_size)
    logits, rows = row_outputs(network, images)
    assert logits.auxiliary.shape == (2, 10)
    sides = {name: tuple(maps.shape[2:]) for name, maps in rows.items() if maps.dim() == 4}
    del sides["conv2_reduce"]
    assert sides == {name: (side, side) for name, side in geometry(image_size)[1].items()}
