"""Published BN-Inception weights in the layout of Cadene's `bninception.py`.

That layout, ported from Caffe, is Figure 5 with a full 7x7 first convolution, pool projections of
128 in 4c and 4d and convolution biases. It takes BGR images of 0 to 255 less a mean colour, and
adds 1e-5 to the variance. Imported, the network takes this project's input and epsilon:

- colours: the first convolution's channels are turned round and its weights multiplied by 127.5.
- epsilon: gamma is multiplied by sqrt((variance + 1e-3) / (variance + 1e-5)).
- edges: `NetworkConfig.caffe_padding`. Beyond the image there is the mean colour in that layout,
  and its 3x3 average pools count the padding as zeros. Neither can be turned into weights.

All of it is exact, up to the rounding of float32.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bn_inception.errors import UserError
from bn_inception.network.checkpoint import expected_tensors, has_plain_values, refusal
from bn_inception.network.inception import FirstConvolution, Inception, NetworkConfig
from bn_inception.network.normalization import EPSILON
from bn_inception.paper import figure5

PUBLISHED_EPSILON = 1e-5
HALF_RANGE = 127.5
"""Grey levels in one unit of this project's input: [-1, 1] is 0 to 255."""

_CLASSIFIER = "last_linear"
_COUNTER = "num_batches_tracked"
_REMEDY = "give a state_dict in the layout of Cadene's bninception.py"


@dataclass(frozen=True)
class PretrainedNetwork:
    """An imported network in evaluation mode, and its settings."""

    network: Inception
    config: NetworkConfig


def import_weights(path: str | Path) -> PretrainedNetwork:
    """Read published weights: safetensors, or what torch loads with `weights_only=True`.

    The number of classes is that of the last layer. `num_batches_tracked` is ignored, and BN
    vectors may have the shape (1, channels), as the oldest ports do.

    Raises:
        UserError: no such file; a file that needs arbitrary unpickling or is damaged; missing or
            unknown keys, another shape, or values that are not finite.
    """
    path = Path(path)
    tensors = read_tensors(path)
    head = tensors.get(f"{_CLASSIFIER}.weight")
    if head is None or head.dim() != 2:
        raise UserError(f"{path}: has no {_CLASSIFIER}.weight; {_REMEDY}")
    config = published_config()
    expected = expected_tensors(config, int(head.shape[0]))
    names = dict(published_names())
    sources = {ours: names[layer] + suffix for ours, layer, suffix in _split(expected)}
    _check(path, tensors, expected, sources)
    imported = {
        ours: tensors[theirs].to(torch.float64).reshape(expected[ours].shape)
        for ours, theirs in sources.items()
    }
    _fold_epsilon(imported)
    _fold_input(imported)
    network = Inception(config, int(head.shape[0]))
    counters = {k: v for k, v in network.state_dict().items() if k.endswith(_COUNTER)}
    network.load_state_dict({k: v.float() for k, v in imported.items()} | counters)
    return PretrainedNetwork(network.eval(), config)


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
    units = [
        ("rows.conv1", "conv1_7x7_s2"),
        ("rows.conv2_reduce", "conv2_3x3_reduce"),
        ("rows.conv2", "conv2_3x3"),
    ]
    for module in figure5.MODULES:
        branches = {
            "one_by_one": "1x1",
            "reduce_3x3": "3x3_reduce",
            "conv_3x3": "3x3",
            "double_reduce": "double_3x3_reduce",
            "double_3x3_1": "double_3x3_1",
            "double_3x3_2": "double_3x3_2",
            "projection": "pool_proj",
        }
        if not module.one_by_one:
            del branches["one_by_one"]
        if not module.projection:
            del branches["projection"]
        units += [
            (f"rows.{module.name}.{here}", f"inception_{module.name}_{there}")
            for here, there in branches.items()
        ]
    for here, there in units:
        yield f"{here}.convolution", there
        yield f"{here}.normalization", f"{there}_bn"
    yield "classifier", _CLASSIFIER


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name from safetensors, or from a pickle that holds nothing but tensors.

    Raises:
        UserError: missing, damaged, or in need of arbitrary unpickling.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {_REMEDY}")
    loaded: Any
    if path.suffix == ".safetensors":
        import safetensors
        import safetensors.torch

        try:
            loaded = safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{path}: not readable as safetensors ({error}); {_REMEDY}") from error
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an old pickle protocol
                loaded = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling damaged or hostile bytes raises anything
            raise UserError(f"{path}: refused, {refusal(error)}; {_REMEDY}") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items()
    ):
        raise UserError(f"{path}: holds no state_dict (names and tensors); {_REMEDY}")
    return dict(loaded)


def _split(expected: Mapping[str, Tensor]) -> Iterator[tuple[str, str, str]]:
    """Of each key that holds weights or statistics: itself, its layer, its suffix with the dot."""
    for key in expected:
        layer, _, suffix = key.rpartition(".")
        if suffix != _COUNTER:
            yield key, layer, f".{suffix}"


def _check(
    path: Path,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    sources: Mapping[str, str],
) -> None:
    unknown = sorted(
        key for key in tensors.keys() - set(sources.values()) if not key.endswith(_COUNTER)
    )
    for keys, problem in (
        (sorted(set(sources.values()) - tensors.keys()), "missing"),
        (unknown, "unknown"),
    ):
        if keys:
            shown = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
            raise UserError(f"{path}: {len(keys)} keys {problem}: {shown}; {_REMEDY}")
    for key, tensor in tensors.items():
        if not has_plain_values(tensor):
            raise UserError(f"{path}: {key} is no plain tensor with values; {_REMEDY}")
    if sum(tensor.nbytes for tensor in tensors.values()) > path.stat().st_size:
        raise UserError(f"{path}: its tensors have more values than the file; {_REMEDY}")
    for ours, theirs in sources.items():
        shape, found = tuple(expected[ours].shape), tuple(tensors[theirs].shape)
        if found not in (shape, (1, *shape) if len(shape) == 1 else shape):
            raise UserError(f"{path}: {theirs} has the shape {found}, not {shape}; {_REMEDY}")
        if not bool(tensors[theirs].isfinite().all()):
            raise UserError(f"{path}: {theirs} holds values that are not finite; {_REMEDY}")
        if theirs.endswith("running_var") and bool((tensors[theirs] < 0).any()):
            raise UserError(f"{path}: {theirs} holds negative variances; {_REMEDY}")


def _fold_epsilon(imported: dict[str, Tensor]) -> None:
    for key in [key for key in imported if key.endswith(".running_var")]:
        variance = imported[key]
        gamma = key.removesuffix("running_var") + "weight"
        imported[gamma] = (
            imported[gamma] * ((variance + EPSILON) / (variance + PUBLISHED_EPSILON)).sqrt()
        )


def _fold_input(imported: dict[str, Tensor]) -> None:
    # The network takes the mean colour away, in its own units: HALF_RANGE grey levels each.
    weight = "rows.conv1.convolution.weight"
    imported[weight] = imported[weight].flip(1) * HALF_RANGE
