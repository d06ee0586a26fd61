"""Exported networks: what comes back is what went out, and what does not fit is refused."""

import json
from pathlib import Path

import pytest
import torch
from evaluation.networks import pictures, refusal, small_network, write_run

import bn_inception
from bn_inception.cli.main import dispatch
from bn_inception.data import Backend
from bn_inception.network import Inception, Normalization

SETTINGS: list[dict[str, object]] = [
    {},
    {"per_activation": ["5b"], "local_response_normalization": True, "dropout": 0.1},
    {"normalization": Normalization.none},
]


def exported(folder: Path, network: Inception) -> Path:
    """The folder that the command has written."""
    run, out = write_run(folder / "run", network, preprocessing={"backend": "fast"}), folder / "out"
    assert dispatch(["export", f"run={run}", f"output={out}"]) == 0
    return out


@pytest.mark.parametrize("settings", SETTINGS)
def test_run_checkpoint_and_export_are_one_network_bit_for_bit(
    tmp_path: Path, settings: dict[str, object]
) -> None:
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
    assert (described["recipe"], described["step"]) == ("bn_x5", 7)


def test_another_network_in_the_folder_is_not_mixed_with_this_one(tmp_path: Path) -> None:
    for _ in range(2):
        before = (exported(tmp_path, small_network(5)) / "model.safetensors").read_bytes()
    assert "holds another network" in refusal(exported, tmp_path, small_network(5, seed=1))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
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
