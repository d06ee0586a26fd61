"""Published BN-Inception weights in the layout of Cadene's `bninception.py`.

That layout, ported from Caffe, is Figure 5 with a full 7x7 first convolution, pool projections of
128 in 4c and 4d and convolution biases. It takes BGR images of 0 to 255 minus a mean colour, and
adds 1e-5 to the variance. The import converts it, exactly up to the rounding of float32:

- colours: the first convolution's channels are reversed and its weights multiplied by 127.5.
- epsilon: gamma is multiplied by sqrt((variance + 1e-3) / (variance + 1e-5)).
- edges: `NetworkConfig.caffe_padding`. That layout pads the image with the mean colour, and its 3x3
  average pools count the padding as zeros. Weights cannot express either.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from bn_inception.network.checkpoint import TensorFile, expected_tensors
from bn_inception.network.inception import Inception
from bn_inception.network.normalization import EPSILON
from bn_inception.network.settings import FirstConvolution, NetworkConfig
from bn_inception.paper import figure5

PUBLISHED = NetworkConfig(
    pool_projection=128,
    first_convolution=FirstConvolution.full,
    auxiliary_head=False,
    convolution_bias=True,
    caffe_padding=True,
)
"""The settings that the layout fixes; 11,295,240 parameters at 1000 classes."""
PUBLISHED_EPSILON = 1e-5
HALF_RANGE = 127.5
"""Grey levels in one unit of this project's input: [-1, 1] stands for 0 to 255."""

_BRANCHES = {
    "one_by_one": "1x1",
    "reduce_3x3": "3x3_reduce",
    "conv_3x3": "3x3",
    "double_reduce": "double_3x3_reduce",
    "double_3x3_1": "double_3x3_1",
    "double_3x3_2": "double_3x3_2",
    "projection": "pool_proj",
}
_CLASSIFIER = "last_linear"
_COUNTER = "num_batches_tracked"
_REMEDY = "give a state_dict in the layout of Cadene's bninception.py"


def import_weights(path: str | Path) -> Inception:
    """Read published weights: safetensors, or a file that torch loads with `weights_only=True`.

    The number of classes is that of the last layer. `num_batches_tracked` is ignored, and BN
    vectors may have the shape (1, channels), as the oldest ports do.

    Returns:
        The network in evaluation mode, on the CPU.
    """
    file = TensorFile(Path(path), _REMEDY)
    theirs = _read(file)
    outputs = file.outputs(theirs, f"{_CLASSIFIER}.weight")
    names = dict(_published_names())
    expected, their_name = {}, {}
    for ours, tensor in expected_tensors(PUBLISHED, outputs).items():
        layer, _, suffix = ours.rpartition(".")
        if suffix != _COUNTER:
            their_name[ours] = f"{names[layer]}.{suffix}"
            expected[their_name[ours]] = tensor
    file.require(theirs, expected)
    for name, tensor in theirs.items():
        if not bool(tensor.isfinite().all()):
            file.refuse(f"{name} holds values that are not finite")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            file.refuse(f"{name} holds negative variances")
    imported = {ours: theirs[name].double() for ours, name in their_name.items()}
    for key in [key for key in imported if key.endswith(".running_var")]:
        ratio = (imported[key] + EPSILON) / (imported[key] + PUBLISHED_EPSILON)
        imported[key.removesuffix("running_var") + "weight"] *= ratio.sqrt()
    # The network subtracts the mean colour in its own units, of HALF_RANGE grey levels each.
    conv1 = "rows.conv1.convolution.weight"
    imported[conv1] = imported[conv1].flip(1) * HALF_RANGE
    network = Inception(PUBLISHED, outputs)
    counters = {k: v for k, v in network.state_dict().items() if k.endswith(_COUNTER)}
    network.load_state_dict({k: v.float() for k, v in imported.items()} | counters)
    return network.eval()


def _published_names() -> Iterator[tuple[str, str]]:
    """Every layer's name here and in the published layout, without `.weight` and its like."""
    units = {
        "rows.conv1": "conv1_7x7_s2",
        "rows.conv2_reduce": "conv2_3x3_reduce",
        "rows.conv2": "conv2_3x3",
    }
    for module in figure5.MODULES:
        for here, there in _BRANCHES.items():
            # A module without 1x1 branch, or without projection, has no such layer.
            if getattr(module, here, 1):
                units[f"rows.{module.name}.{here}"] = f"inception_{module.name}_{there}"
    for here, there in units.items():
        yield f"{here}.convolution", there
        yield f"{here}.normalization", f"{there}_bn"
    yield "classifier", _CLASSIFIER


def _read(file: TensorFile) -> dict[str, Tensor]:
    """The file's tensors; it may hold them under `state_dict`."""
    loaded = file.read()
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    return {
        name: tensor[0] if _is_row(name, tensor) else tensor
        for name, tensor in file.named(loaded).items()
        if not name.endswith(_COUNTER)
    }


def _is_row(name: str, tensor: Tensor) -> bool:
    vector = "_bn." in name and tensor.layout is torch.strided
    return vector and tensor.dim() == 2 and len(tensor) == 1
