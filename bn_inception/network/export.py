"""Networks for other programs, for inference only; the caller writes the files.

An exported folder holds `config.json` (the network's settings, its classes and what it takes as
input) and `model.safetensors` (parameters and statistics, without the auxiliary head) or
`model.onnx`. `bn_inception.load` reads the first two back.
"""

import importlib.util
import io
import logging
import warnings
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bn_inception.errors import UserError
from bn_inception.fields import read_object
from bn_inception.network.checkpoint import LoadedNetwork, TensorFile, described_network, plain
from bn_inception.network.inception import Inception

CONFIG, WEIGHTS, ONNX = "config.json", "model.safetensors", "model.onnx"
FORMAT = 1
PARITY_TOLERANCE = 1e-3
"""Largest difference of a logit between onnxruntime and torch, relative to the largest logit."""
_PARITY_BATCHES = (1, 3)  # differs from the exported example's, to detect a fixed batch size
_EXPORT_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_REMEDY = "give a folder that bn-inception export has written with format=safetensors"


def for_inference(network: Inception) -> Inception:
    """A copy on the CPU in evaluation mode without the auxiliary head, contiguous float32."""
    copy = Inception(replace(network.config, auxiliary_head=False), network.num_classes)
    wanted = copy.state_dict().keys()
    copy.load_state_dict({k: v for k, v in network.state_dict().items() if k in wanted})
    return copy.eval()


def description(loaded: LoadedNetwork) -> dict[str, Any]:
    """The content of `config.json`: how to build the network, and what input it takes."""
    config = replace(loaded.network.config, auxiliary_head=False)
    return {
        "format": FORMAT,
        "architecture": "BN-Inception (Ioffe and Szegedy 2015, Figure 5)",
        "network_config": plain(config),
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

    content: bytes = safetensors.torch.save(
        for_inference(network).state_dict(), metadata={"format": "pt"}
    )
    return content


def load_exported(folder: Path) -> LoadedNetwork:
    """Read a network that `bn-inception export format=safetensors` has written."""
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}: has no {WEIGHTS}; {_REMEDY}")
    said, file = read_object(folder / CONFIG, _REMEDY), TensorFile(folder / WEIGHTS, _REMEDY)
    if said.values.get("format") != FORMAT:
        raise UserError(
            f"{said.where}: not written by bn-inception export (format {FORMAT}); {_REMEDY}"
        )
    return described_network(said, file.read(), file)


def require_onnx() -> None:
    """Raise UserError if the packages of the extra `export` are not installed."""
    missing = [name for name in _EXPORT_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"format=onnx: needs {', '.join(missing)}, not installed; "
            "pip install 'bn-inception[export]'"
        )


def onnx_content(network: Inception) -> tuple[bytes, str]:
    """The content of `model.onnx`, and how far its logits are from torch's, in words.

    Input `images` (N, 3, S, S) float32, output `logits` (N, classes). Random images of two batch
    sizes go through both; UserError where logits differ by more than PARITY_TOLERANCE.
    """
    bare = for_inference(network)
    size = bare.config.image_size
    # The exporter prints its progress and warnings about its own internals.
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                bare,
                (torch.zeros(2, 3, size, size),),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes={"images": {0: torch.export.Dim("N")}},
                dynamo=True,
                verbose=False,
            )
    finally:
        logging.disable(logging.NOTSET)
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    difference, largest = _parity(bare, content)
    if not difference <= PARITY_TOLERANCE * max(1.0, largest):
        raise UserError(
            f"format=onnx: onnxruntime's logits differ from torch's by {difference:.2g} (the "
            f"largest is {largest:.2g}); nothing was written: try other versions of torch and "
            "onnxruntime"
        )
    return content, (
        f"onnxruntime and torch: logits differ by at most {difference:.2g} on random images (the "
        f"largest is {largest:.3g})"
    )


def _parity(network: Inception, content: bytes) -> tuple[float, float]:
    """The largest difference of a logit, and torch's largest logit."""
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
