"""What describes a split of shards: `<split>.json`, and the columns of its index."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from bn_inception.errors import UserError
from bn_inception.files import MAX_JSON_BYTES, first_line, parse_json, read_bytes

FORMAT = "bn-inception shards"
VERSION = 1
COLUMNS: dict[str, type[np.generic]] = {
    "shard": np.int32,  # (images,): number of the shard
    "offset": np.int64,  # (images,): where the encoded image begins in it, bytes
    "length": np.int32,  # (images,): bytes of the encoded image
    "label": np.int64,  # (images,): never falling
    "name_end": np.int64,  # (images,): where the image's name ends in `names`
    "names": np.uint8,  # (characters,): paths below the split's folder, one after the other
}
ORIGINAL = "original bytes"
PREPARE_AGAIN = "make the shards again with bn-inception prepare"
# Into the folder of a damaged description prepare does not write: it cannot tell what is there.
PREPARE_ANEW = f"{PREPARE_AGAIN}, in another folder"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHOWN = 60  # characters of a wrong value


def shard_file(split: str, shard: int) -> str:
    """Name of a shard: "train-000007.tar"."""
    return f"{split}-{shard:06d}.tar"


def column_file(split: str, column: str) -> str:
    """Path of a column below the shards' folder: "train.index/label.npy"."""
    return f"{split}.index/{column}.npy"


def member_key(index: int, name: bytes) -> str:
    """Key of an image inside its shard: 41, b"n01/n01_5.JPEG" -> "00000041-n01_5".

    WebDataset readers take everything up to the first dot as the key, so it holds none.
    """
    stem = name.rpartition(b"/")[2].rpartition(b".")[0].decode("ascii", "replace")
    # 60 characters: a plain tar header holds a name of 100.
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in stem[:60])
    return f"{index:08d}-{plain}"


@dataclass
class ShardMeta:
    """What `<split>.json` holds."""

    split: str  # "train" or "val"
    classes: list[str]  # names in label order
    images: int  # number of images
    shard_size: int  # images in every shard but the last
    encoding: str  # `ORIGINAL`, or how the images were encoded again
    source_fingerprint: str  # of the images the shards were made of
    fingerprint: str  # of the images in the shards; the same if the encoding is the original
    shard_bytes: list[int] = field(default_factory=list)  # size of every shard
    shard_sha256: list[str] = field(default_factory=list)  # SHA-256 of every shard
    index_sha256: dict[str, str] = field(default_factory=dict)  # SHA-256 of every column's file
    order: str = "stored_order(images)"
    format: str = FORMAT
    version: int = VERSION

    def as_json(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def settings(self) -> dict[str, str]:
        """What decides every byte of the shards."""
        return {
            "source images": self.source_fingerprint,
            "shard_size": str(self.shard_size),
            "encoding": self.encoding,
        }

    def shard_files(self) -> list[str]:
        """Names of the shards."""
        return [shard_file(self.split, shard) for shard in range(len(self.shard_bytes))]

    def sha256sums(self) -> str:
        """Text of the file of checksums, in the form of the program sha256sum."""
        sums = [*zip(self.shard_sha256, self.shard_files(), strict=True)]
        sums += [(digest, column_file(self.split, c)) for c, digest in self.index_sha256.items()]
        return "".join(f"{digest}  {file}\n" for digest, file in sums)


def read_meta(folder: str | Path, split: str) -> ShardMeta:
    """Read `<split>.json`.

    Raises:
        UserError: it is missing, damaged, or of another version.
    """
    path = Path(folder) / f"{split}.json"
    try:
        text = read_bytes(path, MAX_JSON_BYTES)
    except FileNotFoundError:
        raise UserError(
            f"data.root: {folder} has no {split}.json: no finished shards; make them with "
            f"bn-inception prepare source=IMAGES target={folder}"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"data.root: {path} cannot be read ({first_line(error)}); {PREPARE_AGAIN}"
        ) from error
    return parse_meta(text, split, str(path))


def parse_meta(text: bytes, split: str, path: str) -> ShardMeta:
    """Check the content of `<split>.json`; `path` is its name, for messages.

    Raises:
        UserError: it is damaged, or of another version.
    """
    try:
        values = parse_json(text)
    except ValueError as error:
        raise UserError(f"data.root: {path} cannot be read ({error}); {PREPARE_ANEW}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"data.root: {path} does not describe shards; {PREPARE_ANEW}")
    if values.get("version") != VERSION:
        raise UserError(
            f"data.root: {path} is of version {_shown(values.get('version'))}, version {VERSION} "
            f"is read; {PREPARE_ANEW}"
        )
    try:
        for name in sorted({own.name for own in fields(ShardMeta)} ^ values.keys()):
            raise ValueError(f"{name[:_SHOWN]!r} is missing, or not known")
        for name, (fits, what) in _VALUES.items():
            if not fits(values[name]):
                raise ValueError(f"{name} is not {what}: {_shown(values[name])}")
        meta = ShardMeta(**values)
        if sum(meta.shard_bytes) > np.iinfo(np.int64).max:
            raise ValueError("shard_bytes are more than any disk holds")
        shards = -(-meta.images // meta.shard_size)
        if not (meta.split == split and len(meta.shard_bytes) == len(meta.shard_sha256) == shards):
            raise ValueError("its numbers of images and shards do not agree")
    except ValueError as error:
        raise UserError(f"data.root: {path} is damaged ({error}); {PREPARE_ANEW}") from error
    return meta


def _is_text(value: Any) -> bool:
    """Whether it is text that a file's name may be: Python's way with odd bytes included."""
    try:
        return isinstance(value, str) and bool(value.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return False


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0  # True is an int to isinstance


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _is_of_columns(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == COLUMNS.keys()
        and all(map(_is_sha256, value.values()))
    )


# What a description may hold, whoever wrote it: the checksums become names of files.
_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "split": (_is_text, "text"),
    "classes": (_list_of(_is_text), "a list of names"),
    "images": (_is_count, "a number over 0"),
    "shard_size": (_is_count, "a number over 0"),
    "encoding": (_is_text, "text"),
    "source_fingerprint": (_is_sha256, "a SHA-256"),
    "fingerprint": (_is_sha256, "a SHA-256"),
    "shard_bytes": (_list_of(_is_count), "a list of sizes over 0"),
    "shard_sha256": (_list_of(_is_sha256), "a list of SHA-256"),
    "index_sha256": (_is_of_columns, "a SHA-256 of every column"),
    "order": (lambda value: value == ShardMeta.order, f"{ShardMeta.order!r}"),
}


def _shown(value: Any) -> str:
    """A JSON value for a message: its beginning, in ASCII."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content in hexadecimal digits; empty where it cannot be read."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would be waited for
