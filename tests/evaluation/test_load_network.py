"""Checkpoints become networks, or one clear line."""

from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.networks import small_network

from bn_inception import UserError
from bn_inception.fields import Fields
from bn_inception.network import (
    FirstConvolution,
    Inception,
    NetworkConfig,
    Nonlinearity,
    Normalization,
    checkpoint,
)


def state(of: Inception, **changes: Any) -> dict[str, Any]:
    return {
        "step": 7,
        "network": of.state_dict(),
        "network_config": checkpoint.plain(of.config),
        "classes": [f"c{label}" for label in range(of.num_classes)],
        "recipe": "bn_x5",
        "preprocessing": {"decoder": "Pillow 1"},
        **changes,
    }


def written(folder: Path, content: dict[str, Any]) -> Path:
    checkpoint.save(content, folder, checkpoint.BEST)
    return folder / checkpoint.BEST


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"normalization": Normalization.none, "auxiliary_head": False},
        {
            "nonlinearity": Nonlinearity.sigmoid,
            "first_convolution": FirstConvolution.full,
            "per_activation": ["5b"],
            "pool_projection": 128,
        },
    ],
)
def test_what_was_saved_is_the_network_loaded(tmp_path: Path, settings: dict[str, Any]) -> None:
    network = small_network(4, **settings)
    path = written(tmp_path, state(network))
    loaded = checkpoint.load_network(path)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(loaded.network(images), network(images))
    assert loaded.config == network.config
    assert (loaded.classes, loaded.recipe, loaded.step) == (("c0", "c1", "c2", "c3"), "bn_x5", 7)
    assert loaded.preprocessing == {"decoder": "Pillow 1"}
    assert len(loaded.sha256) == 64
    assert not loaded.network.training


def test_settings_survive_as_plain_values() -> None:
    config = NetworkConfig(nonlinearity=Nonlinearity.sigmoid, per_activation=["5a"], dropout=0.1)
    stored = Fields({"network_config": checkpoint.plain(config)}, "x")
    assert checkpoint.network_config(stored) == config


def test_a_checkpoint_without_class_names(tmp_path: Path) -> None:
    content = state(small_network())
    for key in ("classes", "recipe", "step", "preprocessing"):
        del content[key]
    loaded = checkpoint.load_network(written(tmp_path, content))
    assert (loaded.classes, loaded.preprocessing, loaded.network.num_classes) == (None, None, 3)


def refusal(tmp_path: Path, content: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        checkpoint.load_network(written(tmp_path, content))
    text = str(caught.value)
    assert "best.pt" in text and "\n" not in text
    return text


def test_another_networks_parameters_are_named(tmp_path: Path) -> None:
    full = small_network(first_convolution=FirstConvolution.full)
    text = refusal(tmp_path, state(full, network_config=checkpoint.plain(small_network().config)))
    assert "1 missing: rows.conv1.depthwise.weight" in text
    wide = small_network(width=0.25)
    text = refusal(tmp_path, state(wide, network_config=checkpoint.plain(small_network().config)))
    assert "has the shape" in text
    content = state(small_network())
    content["network"] = {**content["network"], "extra.weight": torch.ones(1)}
    assert "1 unknown: extra.weight" in refusal(tmp_path, content)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": {}}, "no classifier.weight"),
        ({"network": [1, 2]}, "holds no network's parameters"),
        ({"network_config": None}, "'network_config' is None; expected an object"),
        ({"classes": ["a"]}, "names 1 classes for 3 outputs"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert said in refusal(tmp_path, state(small_network(), **changes))


@pytest.mark.parametrize("keep", [0, 1000, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = written(tmp_path, state(small_network()))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"best\.pt: damaged"):
        checkpoint.load_network(path)


def test_a_small_file_that_asks_for_a_large_network_is_refused_before_it_is_made(
    tmp_path: Path,
) -> None:
    network = small_network(4)
    settings = {**checkpoint.plain(network.config), "width": 16.0, "image_size": 224}
    path = written(tmp_path, state(network, network_config=settings))
    made: list[int] = []
    with torch.device("meta"):  # at its first use torch notes which functions it redirects
        torch.empty(0)
    with pytest.MonkeyPatch.context() as patch:
        empty = torch.empty

        def counted(*size: Any, **named: Any) -> torch.Tensor:
            tensor = empty(*size, **named)
            if tensor.device.type != "meta":
                made.append(tensor.nbytes)
            return tensor

        patch.setattr(torch, "empty", counted)
        with pytest.raises(
            UserError, match=r"has the shape \(4, 24, 1, 1\), not \(1024, 24, 1, 1\)"
        ):
            checkpoint.load_network(path)
    assert sum(made) < 1 << 20


def test_a_file_with_fewer_bytes_than_its_tensors_is_refused(tmp_path: Path) -> None:
    network = small_network(4)
    tensors = {
        key: value if value.dim() == 0 else torch.zeros((), dtype=value.dtype).expand(value.shape)
        for key, value in network.state_dict().items()
    }
    path = written(tmp_path, state(network, network=tensors))
    with pytest.raises(UserError, match="its tensors have more values than the file"):
        checkpoint.load_network(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.to("meta"),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor.to(torch.int64),
    ],
)
def test_tensors_that_are_none_are_one_line(tmp_path: Path, change: Any) -> None:
    network = small_network(4)
    tensors = network.state_dict()
    tensors["classifier.bias"] = change(tensors["classifier.bias"])
    path = written(tmp_path, state(network, network=tensors))
    with pytest.raises(UserError, match=r"classifier\.bias is (no plain tensor|of type)"):
        checkpoint.load_network(path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"depth": 3}, "setting depth is unknown"),
        ({"nonlinearity": "tanh"}, "expected one of relu, sigmoid"),
        ({"width": "wide"}, "'width' is 'wide'"),
        ({"width": -1.0}, "width is -1.0"),
        ({"width": 10**400}, "too large"),
        ({"auxiliary_head": 1}, "'auxiliary_head' is 1"),
        ({"per_activation": "5a"}, "'per_activation' is '5a'"),
        ({"image_size": 1 << 40}, "image_size is 1099511627776: allowed are up to 4096"),
    ],
)
def test_settings_that_are_not_allowed_are_one_line(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    network = small_network(4)
    given = {**checkpoint.plain(network.config), **settings}
    assert said in refusal(tmp_path, state(network, network_config=given))
