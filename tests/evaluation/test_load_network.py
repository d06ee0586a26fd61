"""Checkpoints become networks, or one clear line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.networks import small_network
from torch import Tensor

from bn_inception import UserError
from bn_inception.network import (
    FirstConvolution,
    Inception,
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


def refusal(tmp_path: Path, content: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        checkpoint.load_network(written(tmp_path, content))
    text = str(caught.value)
    assert "best.pt" in text and "\n" not in text
    return text


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"normalization": Normalization.none, "auxiliary_head": False},
        {
            "nonlinearity": Nonlinearity.sigmoid,
            "first_convolution": FirstConvolution.full,
            "per_activation": ["5b"],
            "dropout": 0.1,
            "pool_projection": 128,
        },
    ],
)
def test_what_was_saved_is_the_network_loaded(tmp_path: Path, settings: dict[str, Any]) -> None:
    network = small_network(4, **settings)
    loaded = checkpoint.load_network(written(tmp_path, state(network)))
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(loaded.network(images), network(images))
    assert loaded.config == network.config and not loaded.network.training
    assert (loaded.classes, loaded.recipe, loaded.step) == (("c0", "c1", "c2", "c3"), "bn_x5", 7)
    assert loaded.preprocessing == {"decoder": "Pillow 1"} and len(loaded.sha256) == 64


def test_a_checkpoint_without_class_names(tmp_path: Path) -> None:
    content = state(small_network())
    for key in ("classes", "recipe", "step", "preprocessing"):
        del content[key]
    loaded = checkpoint.load_network(written(tmp_path, content))
    assert (loaded.classes, loaded.preprocessing, loaded.network.num_classes) == (None, None, 3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"first_convolution": FirstConvolution.full}, "1 missing: rows.conv1.depthwise.weight"),
        ({"width": 0.25}, "has the shape"),
    ],
)
def test_another_networks_parameters_are_named(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    own = small_network()
    other = state(small_network(**settings), network_config=checkpoint.plain(own.config))
    assert said in refusal(tmp_path, other)
    more = {**own.state_dict(), "extra.weight": torch.ones(1)}
    assert "1 unknown: extra.weight" in refusal(tmp_path, state(own, network=more))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": {}}, "no classifier.weight"),
        ({"network": [1, 2]}, "holds no network's parameters"),
        ({"network_config": None}, "'network_config' is None; expected an object"),
        ({"classes": ["a"]}, "names 1 classes for 3 outputs"),
        ({"network_config": {"depth": 3}}, "setting depth is unknown"),
        ({"network_config": {"nonlinearity": "tanh"}}, "expected one of relu, sigmoid"),
        ({"network_config": {"width": "wide"}}, "'width' is 'wide'"),
        ({"network_config": {"width": -1.0}}, "width is -1.0"),
        ({"network_config": {"width": 10**400}}, "too large"),
        ({"network_config": {"auxiliary_head": 1}}, "'auxiliary_head' is 1"),
        ({"network_config": {"per_activation": "5a"}}, "'per_activation' is '5a'"),
        ({"network_config": {"image_size": 1 << 40}}, "allowed are up to 4096"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    content = state(small_network())
    if settings := changes.get("network_config"):
        changes = {"network_config": {**content["network_config"], **settings}}
    assert said in refusal(tmp_path, {**content, **changes})


def test_a_small_file_that_asks_for_a_large_network_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = small_network(4)
    settings = {**checkpoint.plain(network.config), "width": 16.0, "image_size": 224}
    content = state(network, network_config=settings)
    made: list[int] = []
    with torch.device("meta"):  # at its first use torch notes which functions it redirects
        torch.empty(0)
    empty = torch.empty

    def counted(*size: Any, **named: Any) -> Tensor:
        tensor = empty(*size, **named)
        made.append(0 if tensor.device.type == "meta" else tensor.nbytes)
        return tensor

    monkeypatch.setattr(torch, "empty", counted)
    said = "has the shape (4, 24, 1, 1), not (1024, 24, 1, 1)"
    assert said in refusal(tmp_path, content)
    assert sum(made) < 1 << 20


def test_a_file_with_fewer_bytes_than_its_tensors_is_refused(tmp_path: Path) -> None:
    network = small_network(4)
    tensors = {
        key: value if value.dim() == 0 else torch.zeros((), dtype=value.dtype).expand(value.shape)
        for key, value in network.state_dict().items()
    }
    said = "its tensors have more values than the file"
    assert said in refusal(tmp_path, state(network, network=tensors))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Tensor.to_sparse, "is no plain tensor"),
        (lambda tensor: tensor.to("meta"), "is no plain tensor"),
        (lambda tensor: tensor.to(torch.complex64), "is of type"),
        (Tensor.long, "is of type"),
    ],
)
def test_tensors_that_are_none_are_one_line(
    tmp_path: Path, change: Callable[[Tensor], Tensor], said: str
) -> None:
    network = small_network(4)
    tensors = network.state_dict()
    tensors["classifier.bias"] = change(tensors["classifier.bias"])
    assert f"classifier.bias {said}" in refusal(tmp_path, state(network, network=tensors))
