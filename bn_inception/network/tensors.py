"""Tensors from files of unknown origin, read without executing anything and checked before use."""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from bn_inception.errors import UserError
from bn_inception.files import first_line


class TensorFile:
    """A file that should hold a network's tensors; what does not fit is a UserError of one line.

    Args:
        path: of the file.
        remedy: ends every message.
        kind: stands before the path in every message.
    """

    def __init__(self, path: Path, remedy: str, kind: str = "") -> None:
        self.path, self._remedy = path, remedy
        self.where = f"{kind}{path}"
        if not path.is_file():
            self.refuse("there is no such file")

    def refuse(self, reason: str, cause: Exception | None = None) -> NoReturn:
        """Raise the UserError."""
        raise UserError(f"{self.where}: {reason}; {self._remedy}") from cause

    def read(self) -> Any:
        """Tensors and plain values, on the CPU: of safetensors, by its suffix, or of torch.save."""
        if self.path.suffix == ".safetensors":
            import safetensors
            import safetensors.torch

            try:
                return safetensors.torch.load_file(self.path)
            except (OSError, safetensors.SafetensorError) as error:
                self.refuse(f"cannot be read as safetensors ({error})", error)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an old pickle protocol
                return torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling hostile bytes may raise anything
            self.refuse(f"refused, {_refusal(error)}", error)

    def named(self, values: object) -> dict[str, Tensor]:
        """`values`, which must be tensors by name."""
        if not isinstance(values, Mapping) or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in values.items()
        ):
            self.refuse("holds no network's parameters (names and tensors)")
        return dict(values)

    def outputs(self, tensors: Mapping[str, Tensor], name: str) -> int:
        """The number of classes, from the weight `name` of the last layer (classes, features)."""
        head = tensors.get(name)
        if head is None or head.dim() != 2:
            self.refuse(f"of another network (no {name})")
        return int(head.shape[0])

    def require(self, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
        """Refuse tensors of other names, kinds or shapes than expected, or larger than the file.

        Those expected may lie on the meta device: nothing is allocated before the check.
        """
        for keys, problem in (
            (sorted(expected.keys() - found.keys()), "missing"),
            (sorted(found.keys() - expected.keys()), "unknown"),
        ):
            if keys:
                shown = ", ".join([*keys[:3], *["..."] * (len(keys) > 3)])
                self.refuse(f"of another network, {len(keys)} {problem}: {shown}")
        for name, wanted in expected.items():
            given = found[name]
            strided = given.layout is torch.strided and not given.is_quantized
            if not strided or given.device.type != "cpu":
                self.refuse(f"{name} is no plain tensor with values")
            if given.dtype.is_complex or given.is_floating_point() != wanted.is_floating_point():
                self.refuse(f"{name} is of type {given.dtype}, not {wanted.dtype}")
            if given.shape != wanted.shape:
                self.refuse(f"{name} has the shape {(*given.shape,)}, not {(*wanted.shape,)}")
        # A view can repeat one value any number of times.
        if sum(tensor.nbytes for tensor in found.values()) > self.path.stat().st_size:
            self.refuse("its tensors have more values than the file")


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
