"""Checkpoints and exported folders become networks, or one clear line."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from evaluation.networks import Malicious, pictures, refusal, small_network, state, write_run
from torch import Tensor

import bn_inception
from bn_inception.cli.main import dispatch
from bn_inception.data import Backend
from bn_inception.network import (
    FirstConvolution,
    Inception,
    Nonlinearity,
    Normalization,
    checkpoint,
)

Tensors = dict[str, Tensor]
FULL = {"first_convolution": FirstConvolution.full}


def written(folder, content):
    checkpoint.save(content, folder, checkpoint.BEST)
    return folder / checkpoint.BEST


def refused(folder, content):
    text = refusal(checkpoint.load_network, written(folder, content))
    assert "best.pt" in text
    return text


def test_what_is_no_checkpoint_is_refused_and_nothing_is_executed_or_followed_out(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_run(Path("run"), small_network(), recipe=Malicious())
    write_run(Path("linked"), small_network())
    Path("linked/checkpoints/best.pt").rename("secret.pt")
    Path("linked/checkpoints/best.pt").symlink_to(tmp_path / "secret.pt")
    torch.save(torch.nn.Linear(2, 2), "module.pt")
    torch.save([torch.zeros(1)], "list.pt")
    Path("bare.pt").write_bytes(pickle.dumps(Malicious()))
    with zipfile.ZipFile("zip.pt", "w") as archive:
        archive.writestr("archive/data.pkl", "hello")
    for name, said in (
        ("run", "which is no tensor: reading it could run any code"),
        ("linked", "leads out of the run folder"),
        ("module.pt", "could run any code"),
        ("list.pt", "not written by bn-inception"),
        ("bare.pt", "damaged (File is not a zip file)"),
        ("zip.pt", "refused, it does not load as plain tensors"),
        ("missing.pt", "there is no such file"),
        (".", "no checkpoints/best.pt; give a run folder"),
    ):
        text = refusal(bn_inception.load, name)
        assert name in text and said in text
    assert not Path("harmed").exists()


@pytest.mark.parametrize(
    ("settings", "changes", "said"),
    [
        ({}, {"network": {}}, "missing: auxiliary.classifier.bias, "),
        ({}, {"network": [1, 2]}, "holds no network's parameters"),
        ({}, {"network_config": None}, "'network_config' is None; expected an object"),
        ({}, {"classes": ["a"]}, "num_classes is 1: allowed are 2 or more"),
        ({}, {"classes": None}, "'classes' is None; expected a list"),
        ({}, {"network_config": {"depth": 3}}, "setting depth is unknown"),
        ({}, {"network_config": {"nonlinearity": "tanh"}}, "expected one of relu, sigmoid"),
        ({}, {"network_config": {"width": "wide"}}, "'width' is 'wide'"),
        ({}, {"network_config": {"width": -1.0}}, "width is -1.0"),
        ({}, {"network_config": {"width": 10**400}}, "too large"),
        ({}, {"network_config": {"auxiliary_head": 1}}, "'auxiliary_head' is 1"),
        ({}, {"network_config": {"per_activation": "5a"}}, "'per_activation' is '5a'"),
        ({}, {"network_config": {"image_size": 1 << 40}}, "allowed are up to 4096"),
        # Another network's parameters.
        (FULL, {"network_config": {"first_convolution": "separable"}},
         "1 missing: rows.conv1.depthwise.weight"),
        ({"width": 0.25}, {"network_config": {"width": 0.0625}}, "has the shape"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path, settings, changes, said):
    content = state(small_network(**settings))
    if part := changes.get("network_config"):
        changes = {"network_config": {**content["network_config"], **part}}
    assert said in refused(tmp_path, {**content, **changes})


def bias(change):
    return lambda tensors: {**tensors, "classifier.bias": change(tensors["classifier.bias"])}


def repeated(tensors):
    """Views of one value each, which have fewer bytes in the file than out of it."""
    return {
        key: value if value.dim() == 0 else torch.zeros((), dtype=value.dtype).expand(value.shape)
        for key, value in tensors.items()
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (bias(Tensor.to_sparse), "classifier.bias is no plain tensor"),
        (bias(lambda tensor: tensor.to("meta")), "classifier.bias is no plain tensor"),
        (bias(lambda tensor: tensor.to(torch.complex64)), "classifier.bias is of type"),
        (bias(Tensor.long), "classifier.bias is of type"),
        (lambda tensors: {**tensors, "extra.weight": torch.ones(1)}, "1 unknown: extra.weight"),
        (repeated, "its tensors have more values than the file"),
    ],
)
def test_tensors_that_are_none_of_the_networks_are_refused(tmp_path, change, said):
    network = small_network(4)
    assert said in refused(tmp_path, state(network, network=change(network.state_dict())))


def test_a_small_file_that_asks_for_a_large_network_is_refused_before_it_is_made(
    tmp_path, monkeypatch
):
    network = small_network(4)
    settings = {**checkpoint.plain(network.config), "width": 16.0, "image_size": 224}
    devices: list[str] = []

    def noted(*given):
        devices.append(torch.empty(0).device.type)
        return Inception(*given)

    monkeypatch.setattr(checkpoint, "Inception", noted)
    said = "has the shape (4, 24, 1, 1), not (1024, 24, 1, 1)"
    assert said in refused(tmp_path, state(network, network_config=settings))
    assert devices == ["meta"]  # which allocates nothing


SETTINGS: list[dict[str, object]] = [
    {},
    {"per_activation": ["5b"], "local_response_normalization": True, "dropout": 0.1},
    {"nonlinearity": Nonlinearity.sigmoid, "pool_projection": 128, **FULL},
    {"normalization": Normalization.none, "auxiliary_head": False},
]


def exported(folder, network):
    """The folder that the command has written."""
    run, out = write_run(folder / "run", network, preprocessing={"backend": "fast"}), folder / "out"
    assert dispatch(["export", f"run={run}", f"output={out}"]) == 0
    return out


@pytest.mark.parametrize("settings", SETTINGS)
def test_run_checkpoint_and_export_are_one_network_bit_for_bit(tmp_path, settings):
    network = small_network(5, **settings)
    out = exported(tmp_path, network)
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}
    for path in (tmp_path / "run", str(tmp_path / "run" / "checkpoints" / "best.pt"), out):
        loaded = bn_inception.load(path)
        assert not loaded.network.training and loaded.backend is Backend.fast
        assert loaded.classes == ("c0", "c1", "c2", "c3", "c4")
        with torch.no_grad():
            assert torch.equal(loaded.network(pictures()), network(pictures()))
    assert loaded.network.auxiliary is None
    described = json.loads((out / "config.json").read_text())
    assert described["classes"] == list(loaded.classes) and described["num_classes"] == 5
    assert described["input"]["shape"] == ["N", 3, 16, 16]
    assert described["preprocessing"] == {"backend": "fast"}
    assert (described["recipe"], described["step"]) == ("bn_x5", 7)


def test_another_network_in_the_folder_is_not_mixed_with_this_one(tmp_path):
    for _ in range(2):
        before = (exported(tmp_path, small_network(5)) / "model.safetensors").read_bytes()
    assert "holds another network" in refusal(exported, tmp_path, small_network(5, seed=1))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


def test_a_folder_that_does_not_fit_is_refused(tmp_path):
    out = exported(tmp_path, small_network(5))
    config = (out / "config.json").read_text()
    weights = (out / "model.safetensors").read_bytes()

    for text, words in (
        ("{", "not valid JSON"),
        ("[]", "not an object"),
        ("{}", "not written by bn-inception export"),
        (config.replace('"c4"', '"c4", "c5"'), "classifier.weight has the shape (5, "),
        (config.replace('"width": 0.0625', '"width": 0.25'), "has the shape"),
        (config.replace('"width"', '"breadth"'), "breadth"),
    ):
        (out / "config.json").write_text(text)
        assert words in refusal(bn_inception.load, out)
    (out / "config.json").write_text(config)
    (out / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "cannot be read" in refusal(bn_inception.load, out)
    (out / "model.safetensors").unlink()
    assert "model.safetensors: there is no such file" in refusal(bn_inception.load, out)
