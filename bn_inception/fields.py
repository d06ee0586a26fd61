"""Strict reading of JSON objects: a fault is one line naming the file, the key and the value."""

import dataclasses
import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from bn_inception.errors import UserError
from bn_inception.files import first_line, read_bytes

T = TypeVar("T")

FRACTION = "fraction"
"""Metadata of a dataclass's field: a number in [0, 1]."""
MAX_BYTES = 1 << 26
"""Of one file: a summary with a thousand replaced images has 100 KB."""
_LARGEST = 1 << 63


def read_object(path: Path, remedy: str) -> "Fields":
    """The JSON object in the file `path`.

    Raises:
        UserError: missing, unreadable, too long, or not a JSON object; `remedy` ends the line.
    """
    try:
        text = read_bytes(path, MAX_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text; {remedy}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); {remedy}") from error
    return parse_object(text, str(path), remedy)


def parse_object(text: str, where: str, remedy: str) -> "Fields":
    """The JSON object in `text`; `where` (file, or file and line) names it in errors.

    Raises:
        UserError: not JSON, not an object, or a number that is infinite or over 64 bits.
    """
    try:
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_of_64_bits
        )
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        reason = "nested too deep" if isinstance(error, RecursionError) else reason
        raise UserError(f"{where}: not valid JSON ({reason}); {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: a JSON {type(value).__name__}, not an object; {remedy}")
    return Fields(value, where)


def _refuse_constant(name: str) -> None:
    # Python reads NaN and Infinity where JSON has no such numbers.
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:20]} is out of range")
    return value


def _of_64_bits(digits: str) -> int:
    if len(digits) > 20 or not -_LARGEST <= int(digits) < _LARGEST:
        raise ValueError(f"{digits[:20]} is out of range")
    return int(digits)


class Fields:
    """Typed access to one JSON object.

    Each method raises UserError where the key is missing or its value has another type; the
    `optional_` ones return None where the key is missing or null. Unknown keys are ignored, so
    that a file written by a newer version can be read.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._where = where

    @property
    def values(self) -> dict[str, Any]:
        """All of the object, unchecked."""
        return dict(self._values)

    def _get(self, key: str, allowed: str, types: tuple[type, ...], optional: bool) -> Any:
        value = self._values.get(key)
        if value is None and optional:
            return None
        if key not in self._values:
            raise UserError(f"{self._where}: {key!r} is missing; expected {allowed}")
        # In Python True is an int; in JSON it is not a number.
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise UserError(f"{self._where}: {key!r} is {value!r}; expected {allowed}")
        return value

    def as_(self, kind: type[T]) -> T:
        """The object as the dataclass `kind`; where a field allows None, the key may be missing.

        Fields are of the types that the methods below read, enums, and dataclasses of such.
        """
        hints = get_type_hints(kind)
        return kind(
            **{
                field.name: self._typed(field.name, hints[field.name], field.metadata)
                for field in dataclasses.fields(kind)  # type: ignore[arg-type]
            }
        )

    def _typed(self, key: str, kind: Any, metadata: Mapping[str, Any]) -> Any:
        if metadata.get(FRACTION):
            return self.fraction(key)
        if isinstance(kind, UnionType):
            if self._values.get(key) is None:
                return None
            (kind,) = set(get_args(kind)) - {NoneType}
        if isinstance(kind, type) and issubclass(kind, Enum):
            return self._member(key, kind)
        if dataclasses.is_dataclass(kind):
            inner = self._get(key, "an object", (dict,), False)
            return Fields(inner, f"{self._where}: {key}").as_(kind)  # type: ignore[arg-type]
        if get_origin(kind) is list:
            return [entry.as_(get_args(kind)[0]) for entry in self.objects(key)]
        if get_origin(kind) is dict:
            return self.texts(key)
        return {str: self.text, bool: self.flag, int: self.count, float: self.number}[kind](key)

    def _member(self, key: str, kind: type[Enum]) -> Enum:
        value = self.text(key)
        if value not in kind.__members__:
            allowed = ", ".join(kind.__members__)
            raise UserError(f"{self._where}: {key!r} is {value!r}; expected one of {allowed}")
        return kind(value)

    def text(self, key: str) -> str:
        """Text, possibly empty."""
        return str(self._get(key, "text", (str,), False))

    def optional_text(self, key: str) -> str | None:
        """Text or None."""
        value = self._get(key, "text or null", (str,), True)
        return None if value is None else str(value)

    def flag(self, key: str) -> bool:
        """True or false."""
        return bool(self._get(key, "true or false", (bool,), False))

    def count(self, key: str) -> int:
        """An integer of 0 or more."""
        return self._not_negative(key, self._get(key, "an integer of 0 or more", (int,), False))

    def optional_count(self, key: str) -> int | None:
        """An integer of 0 or more, or None."""
        value = self._get(key, "an integer of 0 or more, or null", (int,), True)
        return None if value is None else self._not_negative(key, value)

    def number(self, key: str) -> float:
        """A finite number."""
        return float(self._get(key, "a number", (int, float), False))

    def fraction(self, key: str) -> float:
        """A number in [0, 1]."""
        value = self.number(key)
        if not 0 <= value <= 1:
            raise UserError(f"{self._where}: {key!r} is {value!r}; expected a fraction in [0, 1]")
        return value

    def optional_object(self, key: str) -> "Fields | None":
        """An object or None."""
        value = self._get(key, "an object or null", (dict,), True)
        return None if value is None else Fields(value, f"{self._where}: {key}")

    def objects(self, key: str) -> "list[Fields]":
        """A list of objects."""
        values = self._get(key, "a list of objects", (list,), False)
        for value in values:
            if not isinstance(value, dict):
                raise UserError(f"{self._where}: {key!r} holds {value!r}; expected objects")
        return [Fields(value, f"{self._where}: {key}[{i}]") for i, value in enumerate(values)]

    def texts(self, key: str) -> dict[str, str]:
        """An object of texts."""
        values = self._get(key, "an object of texts", (dict,), False)
        for name, value in values.items():
            if not isinstance(value, str):
                raise UserError(f"{self._where}: {key!r}[{name!r}] is {value!r}; expected text")
        return dict(values)

    def optional_texts(self, key: str) -> dict[str, str]:
        """An object of texts; empty where missing or null."""
        return {} if self._values.get(key) is None else self.texts(key)

    def pair(self, key: str) -> tuple[float, float]:
        """A list of two numbers."""
        values = self._get(key, "a list of 2 numbers", (list,), False)
        if len(values) != 2 or not all(type(value) in (int, float) for value in values):
            raise UserError(f"{self._where}: {key!r} is {values!r}; expected 2 numbers")
        return float(values[0]), float(values[1])

    def rows(self, key: str, width: int) -> list[tuple[float, ...]]:
        """A list of lists of `width` numbers each; empty where missing or null."""
        rows = self._get(key, f"a list of {width} numbers each", (list,), True) or []
        for row in rows:
            numbers = isinstance(row, list) and all(type(value) in (int, float) for value in row)
            if not numbers or len(row) != width:
                raise UserError(f"{self._where}: {key!r} holds {row!r}; expected {width} numbers")
        return [tuple(map(float, row)) for row in rows]

    def _not_negative(self, key: str, value: int) -> int:
        if value < 0:
            raise UserError(f"{self._where}: {key!r} is {value}; expected 0 or more")
        return value
