"""Networks for other programs: safetensors with a description, and ONNX, both for inference only.

An exported folder holds

    config.json         the network's settings, its classes and what it takes as input
    model.safetensors   parameters and statistics, without the auxiliary head
    model.onnx          in its place, with format=onnx

The first two are read back with

    import bn_inception
    network = bn_inception.load("FOLDER").network

This module makes the contents of the files; the caller writes them.
"""

import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bn_inception.errors import UserError
from bn_inception.fields import read_object
from bn_inception.network.checkpoint import (
    LoadedNetwork,
    class_names,
    expected_tensors,
    network_config,
    plain,
)
from bn_inception.network.inception import Inception
from bn_inception.network.tensors import read_safetensors, require_tensors

CONFIG, WEIGHTS, ONNX = "config.json", "model.safetensors", "model.onnx"
FORMAT = 1
MAX_CLASSES = 1 << 30
PARITY_TOLERANCE = 1e-3
"""Largest difference of a logit between onnxruntime and torch, relative to the largest logit."""
_PARITY_BATCHES = (1, 3)  # differs from the exported example's, to detect a fixed batch size
_EXPORT_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_REMEDY = "give a folder that bn-inception export has written with format=safetensors"


@dataclass(frozen=True)
class OnnxExport:
    """An ONNX file's content, and how much onnxruntime's logits differ from torch's.

    Attributes:
        content: the file. Input `images` (N, 3, S, S) float32, output `logits` (N, classes).
        difference: the largest absolute difference of a logit over random images.
        largest: the largest absolute logit of torch on the same images.
    """

    content: bytes
    difference: float
    largest: float


@dataclass(frozen=True)
class Exported:
    """A network that was exported; its attributes are those of `LoadedNetwork`."""

    network: Inception
    classes: tuple[str, ...] | None
    preprocessing: dict[str, str] | None


def for_inference(network: Inception) -> Inception:
    """A copy on the CPU in evaluation mode without the auxiliary head, contiguous float32."""
    config = replace(network.config, auxiliary_head=False)
    copy = Inception(config, network.num_classes)
    wanted = copy.state_dict().keys()
    copy.load_state_dict({k: v for k, v in network.state_dict().items() if k in wanted})
    return copy.eval()


def description(loaded: LoadedNetwork) -> dict[str, Any]:
    """The content of `config.json`: how to build the network, and what input it takes."""
    config = replace(loaded.config, auxiliary_head=False)
    return {
        "format": FORMAT,
        "architecture": "BN-Inception (Ioffe and Szegedy 2015, Figure 5)",
        "network": plain(config),
        "num_classes": loaded.network.num_classes,
        "classes": None if loaded.classes is None else list(loaded.classes),
        "input": {
            "shape": ["N", 3, config.image_size, config.image_size],
            "colours": "RGB",
            "range": [-1.0, 1.0],
            "crop": "shorter side to 256/224 of the image size, centre (bilinear, antialiased)",
        },
        "preprocessing": loaded.preprocessing,
        "output": "logits (N, num_classes); softmax gives probabilities",
        "recipe": loaded.recipe,
        "step": loaded.step,
        "checkpoint_sha256": loaded.sha256,
    }


def safetensors_content(network: Inception) -> bytes:
    """The content of `model.safetensors`: the state_dict of `for_inference(network)`."""
    import safetensors.torch

    tensors = {k: v.contiguous() for k, v in for_inference(network).state_dict().items()}
    content: bytes = safetensors.torch.save(tensors, metadata={"format": "pt"})
    return content


def load_exported(folder: Path) -> Exported:
    """Read a network that `bn-inception export format=safetensors` has written.

    Nothing in the folder is executed; it holds JSON and tensors.

    Args:
        folder: holds `config.json` and `model.safetensors`.

    Raises:
        UserError: a file is missing or damaged, or the two do not fit each other.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: has no {name}; {_REMEDY}")
    where, weights = str(folder / CONFIG), folder / WEIGHTS
    described = read_object(folder / CONFIG, _REMEDY)
    if described.values.get("format") != FORMAT:
        raise UserError(f"{where}: not written by bn-inception export (format {FORMAT}); {_REMEDY}")
    config = network_config(described.values.get("network"), where)
    num_classes = described.get("num_classes", int)
    if not 2 <= num_classes <= MAX_CLASSES:
        raise UserError(f"{where}: 'num_classes' is {num_classes}, out of range; {_REMEDY}")
    tensors = read_safetensors(weights, _REMEDY)
    expected = expected_tensors(config, num_classes)
    require_tensors(tensors, expected, str(weights), _REMEDY, weights.stat().st_size)
    network = Inception(config, num_classes)
    network.load_state_dict(tensors)
    return Exported(
        network.eval(),
        class_names(described.values.get("classes"), num_classes, where),
        described.get("preprocessing", dict[str, str] | None) or None,
    )


def require_onnx() -> None:
    """Raise UserError if the packages of the extra `export` are not installed."""
    missing = [name for name in _EXPORT_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"format=onnx: needs {', '.join(missing)}, not installed; "
            "pip install 'bn-inception[export]'"
        )


def export_onnx(network: Inception) -> OnnxExport:
    """Export to ONNX and compare onnxruntime with torch on random images of two batch sizes.

    Raises:
        UserError: a package is missing, or logits differ by more than PARITY_TOLERANCE.
    """
    require_onnx()
    bare = for_inference(network)
    size = bare.config.image_size
    example = torch.zeros(2, 3, size, size)
    # The exporter prints its progress and warnings about its own internals.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), _only_errors_logged():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            bare,
            (example,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("N")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    difference, largest = _parity(bare, content)
    if not difference <= PARITY_TOLERANCE * max(1.0, largest):
        raise UserError(
            f"format=onnx: onnxruntime's logits differ from torch's by {difference:.2g} (the "
            f"largest is {largest:.2g}); nothing was written: try other versions of torch and "
            "onnxruntime"
        )
    return OnnxExport(content, difference, largest)


def _parity(network: Inception, content: bytes) -> tuple[float, float]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    size = network.config.image_size
    difference = largest = 0.0
    for batch in _PARITY_BATCHES:
        images = torch.rand(batch, 3, size, size, generator=generator) * 2 - 1
        with torch.inference_mode():
            expected = network(images)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        difference = max(difference, float((torch.from_numpy(logits) - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
    return difference, largest


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
