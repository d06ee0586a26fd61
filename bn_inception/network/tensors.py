"""Tensors from files of unknown origin, read without executing anything and checked before use."""

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bn_inception.errors import UserError
from bn_inception.files import first_line


def read_pickle(path: Path, where: str, remedy: str) -> Any:
    """Read a file of `torch.save` onto the CPU; only tensors and plain values.

    Raises:
        UserError: damaged, or only readable by unpickling arbitrary objects.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an old pickle protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling hostile bytes may raise anything
        raise UserError(f"{where}: refused, {_refusal(error)}; {remedy}") from error


def _refusal(error: Exception) -> str:
    # Our own words, because torch's message advises to read the file unsafely.
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in text.lower():
        named = re.search(r"GLOBAL ([\w.]+)", text)
        what = f"it names {named[1]}, which is no tensor" if named else "it holds more than tensors"
        return (
            f"{what}: reading it could run any code; convert it to safetensors where you trust it"
        )
    return f"it does not load as plain tensors ({first_line(error)})"


def read_safetensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """Read tensors by name from a safetensors file.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    import safetensors
    import safetensors.torch

    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error}); {remedy}") from error
    return tensors


def named_tensors(values: object, where: str, remedy: str) -> dict[str, Tensor]:
    """`values`, if it is a mapping from names to tensors; else UserError."""
    if not isinstance(values, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in values.items()
    ):
        raise UserError(f"{where}: holds no network's parameters (names and tensors); {remedy}")
    return dict(values)


def outputs_of(tensors: Mapping[str, Tensor], name: str, where: str, remedy: str) -> int:
    """The number of classes, from the weight `name` of the last layer (classes, features)."""
    head = tensors.get(name)
    if head is None or head.dim() != 2:
        raise UserError(f"{where}: of another network (no {name}); {remedy}")
    return int(head.shape[0])


def require_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str, remedy: str, size: int
) -> None:
    """Refuse tensors of other names, kinds or shapes than expected, or larger than their file.

    Args:
        found: from the file.
        expected: on any device; the meta device allocates nothing before the check.
        where: the file's name, for errors.
        remedy: the end of error messages.
        size: of the file, bytes. A view can repeat one value any number of times.

    Raises:
        UserError: the first tensor that does not fit.
    """

    def refuse(reason: str) -> None:
        raise UserError(f"{where}: {reason}; {remedy}")

    for keys, problem in (
        (sorted(expected.keys() - found.keys()), "missing"),
        (sorted(found.keys() - expected.keys()), "unknown"),
    ):
        if keys:
            refuse(f"of another network, {len(keys)} {problem}: {_first(keys)}")
    for name, wanted in expected.items():
        given = found[name]
        strided = given.layout is torch.strided and not given.is_quantized
        if not strided or given.device.type != "cpu":
            refuse(f"{name} is no plain tensor with values")
        if given.dtype.is_complex or given.is_floating_point() != wanted.is_floating_point():
            refuse(f"{name} is of type {given.dtype}, not {wanted.dtype}")
        if given.shape != wanted.shape:
            refuse(f"{name} has the shape {tuple(given.shape)}, not {tuple(wanted.shape)}")
    if sum(tensor.nbytes for tensor in found.values()) > size:
        refuse("its tensors have more values than the file")


def _first(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
