"""Published BN-Inception weights in the layout of Cadene's `bninception.py`.

That layout, ported from Caffe, is Figure 5 with a full 7x7 first convolution, pool projections of
128 in 4c and 4d and convolution biases. It takes BGR images of 0 to 255 minus a mean colour, and
adds 1e-5 to the variance. The import converts it to this project's input and epsilon:

- colours: the first convolution's channels are reversed and its weights multiplied by 127.5.
- epsilon: gamma is multiplied by sqrt((variance + 1e-3) / (variance + 1e-5)).
- edges: `NetworkConfig.caffe_padding`. That layout pads the image with the mean colour, and its 3x3
  average pools count the padding as zeros. Weights cannot express either.

The conversion is exact up to the rounding of float32.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from bn_inception.errors import UserError
from bn_inception.network.checkpoint import expected_tensors
from bn_inception.network.inception import Inception
from bn_inception.network.normalization import EPSILON
from bn_inception.network.settings import FirstConvolution, NetworkConfig
from bn_inception.network.tensors import (
    named_tensors,
    outputs_of,
    read_pickle,
    read_safetensors,
    require_tensors,
)
from bn_inception.paper import figure5

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

    Raises:
        UserError: no such file; a file that needs arbitrary unpickling or is damaged; missing or
            unknown keys, another shape, or values that are not finite.
    """
    path, where = Path(path), str(path)
    tensors = _read(path)
    outputs = outputs_of(tensors, f"{_CLASSIFIER}.weight", where, _REMEDY)
    expected = expected_tensors(published_config(), outputs)
    names = dict(published_names())
    theirs_of = {}
    for ours in expected:
        layer, _, suffix = ours.rpartition(".")
        if suffix != _COUNTER:
            theirs_of[ours] = f"{names[layer]}.{suffix}"
    wanted = {theirs: expected[ours] for ours, theirs in theirs_of.items()}
    require_tensors(tensors, wanted, where, _REMEDY, path.stat().st_size)
    _require_values(tensors, where)
    imported = {ours: tensors[theirs].double() for ours, theirs in theirs_of.items()}
    _fold_epsilon(imported)
    _fold_input(imported)
    network = Inception(published_config(), outputs)
    counters = {k: v for k, v in network.state_dict().items() if k.endswith(_COUNTER)}
    network.load_state_dict({k: v.float() for k, v in imported.items()} | counters)
    return network.eval()


def published_config() -> NetworkConfig:
    """The settings that the layout fixes; 11,295,240 parameters at 1000 classes."""
    return NetworkConfig(
        pool_projection=128,
        first_convolution=FirstConvolution.full,
        auxiliary_head=False,
        convolution_bias=True,
        caffe_padding=True,
    )


def published_names() -> Iterator[tuple[str, str]]:
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


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {_REMEDY}")
    if path.suffix == ".safetensors":
        loaded: object = read_safetensors(path, _REMEDY)
    else:
        loaded = read_pickle(path, str(path), _REMEDY)
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    tensors = named_tensors(loaded, str(path), _REMEDY)
    return {
        name: tensor[0] if _is_row(name, tensor) else tensor
        for name, tensor in tensors.items()
        if not name.endswith(_COUNTER)
    }


def _is_row(name: str, tensor: Tensor) -> bool:
    vector = "_bn." in name and tensor.layout is torch.strided
    return vector and tensor.dim() == 2 and len(tensor) == 1


def _require_values(tensors: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise UserError(f"{where}: {name} holds values that are not finite; {_REMEDY}")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise UserError(f"{where}: {name} holds negative variances; {_REMEDY}")


def _fold_epsilon(imported: dict[str, Tensor]) -> None:
    for key in [key for key in imported if key.endswith(".running_var")]:
        variance = imported[key]
        gamma = key.removesuffix("running_var") + "weight"
        imported[gamma] = (
            imported[gamma] * ((variance + EPSILON) / (variance + PUBLISHED_EPSILON)).sqrt()
        )


def _fold_input(imported: dict[str, Tensor]) -> None:
    # The network subtracts the mean colour in its own units, of HALF_RANGE grey levels each.
    weight = "rows.conv1.convolution.weight"
    imported[weight] = imported[weight].flip(1) * HALF_RANGE
