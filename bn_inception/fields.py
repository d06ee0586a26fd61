"""Strict reading of JSON objects: a fault is one line naming the file, the key and the value."""

import dataclasses
import json
import math
from collections.abc import Mapping
from enum import EnumType
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from bn_inception.errors import UserError
from bn_inception.files import read_bytes, refusing

T = TypeVar("T")

Fraction = Annotated[float, "in [0, 1]"]
MAX_BYTES = 1 << 26
"""Of one file: a summary with a thousand replaced images has 100 KB."""
_LARGEST = 1 << 63
_EXPECTED = {
    str: "text",
    bool: "true or false",
    int: "an integer of 0 or more",
    float: "a number",
    Fraction: "a fraction in [0, 1]",
    list: "a list",
}


def read_object(path: Path, remedy: str) -> "Fields":
    """The JSON object in a file; where there is none, a UserError that ends in `remedy`."""
    with refusing(f"{path}: cannot be read", remedy, ValueError):
        text = read_bytes(path, MAX_BYTES).decode("utf-8")
    return parse_object(text, str(path), remedy)


def parse_object(text: str, where: str, remedy: str) -> "Fields":
    """The JSON object in `text`; `where` (file, or file and line) names it in errors.

    Raises:
        UserError: not JSON, not an object, or a number that is infinite or over 64 bits.
    """
    try:
        # Python reads NaN and Infinity where JSON has no such numbers.
        value = json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_number)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        reason = "nested too deep" if isinstance(error, RecursionError) else reason
        raise UserError(f"{where}: not valid JSON ({reason}); {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: a JSON {type(value).__name__}, not an object; {remedy}")
    return Fields(value, where)


def _number(digits: str) -> float:
    value: float = int(digits) if digits.lstrip("-").isdigit() else float(digits)
    whole = isinstance(value, int)
    if not (-_LARGEST <= value < _LARGEST if whole else math.isfinite(value)):
        raise ValueError(f"{digits[:20]} is out of range")
    return value


@dataclasses.dataclass(frozen=True)
class Fields:
    """Typed access to one JSON object; `where` names it in errors.

    Unknown keys are ignored, so that a file written by a newer version can be read.
    """

    values: Mapping[str, Any]
    where: str

    def get(self, key: str, kind: Any) -> Any:
        """The value of `key`, a UserError if it is missing or of another type than `kind`.

        Args:
            key: of the object.
            kind: str, bool, int (0 or more), float, Fraction, Fields, an enum or a dataclass; a
                list, tuple or dict of such; with `| None` it may be null or missing.
        """
        where = f"{self.where}: {key!r}"
        if key not in self.values and NoneType not in get_args(kind):
            raise UserError(f"{where} is missing; expected {_expected(kind)}")
        return _typed(self.values.get(key), kind, where)

    def as_(self, kind: type[T], **known: Any) -> T:
        """The object as the dataclass `kind`, some of whose fields are `known`."""
        hints = _hints(kind)  # type: ignore[arg-type]
        read = {name: self.get(name, hints[name]) for name in hints if name not in known}
        return kind(**read, **known)


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _typed(value: Any, kind: Any, where: str) -> Any:
    if NoneType in get_args(kind):
        if value is None:
            return None
        (kind,) = set(get_args(kind)) - {NoneType}
    container, inner = get_origin(kind), get_args(kind)
    if isinstance(value, dict):
        if container is dict:
            return {key: _typed(v, inner[1], f"{where}[{key!r}]") for key, v in value.items()}
        if dataclasses.is_dataclass(kind):
            fields = Fields(value, where)
            return fields if kind is Fields else fields.as_(kind)  # type: ignore[arg-type]
    if isinstance(value, list):
        if container is list:
            return [_typed(v, inner[0], f"{where}[{at}]") for at, v in enumerate(value)]
        if container is tuple and len(value) == len(inner):
            return tuple(_typed(v, each, where) for v, each in zip(value, inner, strict=True))
    if isinstance(kind, EnumType) and isinstance(value, str) and value in kind.__members__:
        return kind(value)
    # In Python True is an int; in JSON it is not a number.
    number = type(value) in (int, float)
    if number and (kind is float or (kind == Fraction and 0 <= value <= 1)):
        return float(value)
    if type(value) is kind and not (kind is int and value < 0):
        return value
    raise UserError(f"{where} is {value!r}; expected {_expected(kind)}")


def _expected(kind: Any) -> str:
    if isinstance(kind, EnumType):
        return f"one of {', '.join(kind.__members__)}"
    if get_origin(kind) is tuple:
        return f"{len(get_args(kind))} numbers"
    return _EXPECTED.get(kind) or _EXPECTED.get(get_origin(kind)) or "an object"
