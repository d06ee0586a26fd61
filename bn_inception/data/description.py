"""The description of a split of shards: `<split>.json`, and the columns of its index."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import numpy as np

from bn_inception.errors import UserError
from bn_inception.files import first_line, read_json

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
# prepare does not write into a folder with a damaged description: it cannot tell what is there.
PREPARE_ANEW = f"{PREPARE_AGAIN}, in another folder"

_ORDER = "stored_order(images)"
_SHOWN = 60  # characters of a wrong value


def shard_file(split: str, shard: int) -> str:
    """Name of a shard: "train-000007.tar"."""
    return f"{split}-{shard:06d}.tar"


def column_file(split: str, column: str) -> str:
    """Path of a column below the shards' folder: "train.index/label.npy"."""
    return f"{split}.index/{column}.npy"


def member_key(index: int, name: bytes) -> str:
    """Key of an image inside its shard: 41, b"n01/n01_5.JPEG" -> "00000041-n01_5".

    WebDataset readers take everything up to the first dot as the key, so it contains no dot.
    """
    stem = name.rpartition(b"/")[2].rpartition(b".")[0].decode("ascii", "replace")
    # 60 characters, because a plain tar header has room for 100.
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in stem[:60])
    return f"{index:08d}-{plain}"


def _is_text(value: Any) -> bool:
    """Whether `value` is text that can be a file's name, with surrogate escapes for odd bytes."""
    try:
        return isinstance(value, str) and bool(value.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return False


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0  # True is an int to isinstance


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _is_of_columns(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == COLUMNS.keys()
        and all(map(_is_sha256, value.values()))
    )


# The allowed values, checked because the file may be hostile: checksums become names of files.
_Text = Annotated[str, _is_text, "text"]
_Count = Annotated[int, _is_count, "a number over 0"]
_Sha256 = Annotated[str, _is_sha256, "a SHA-256"]
_Names = Annotated[list[str], _list_of(_is_text), "a list of names"]
_Sizes = Annotated[list[int], _list_of(_is_count), "a list of sizes over 0"]
_Sha256s = Annotated[list[str], _list_of(_is_sha256), "a list of SHA-256"]
_OfColumns = Annotated[dict[str, str], _is_of_columns, "a SHA-256 of every column"]


@dataclass
class ShardMeta:
    """What `<split>.json` holds."""

    split: _Text  # "train" or "val"
    classes: _Names  # in label order
    images: _Count
    shard_size: _Count  # images in every shard but the last
    encoding: _Text  # `ORIGINAL`, or how the images were encoded again
    source_fingerprint: _Sha256  # of the images the shards were made of
    fingerprint: _Sha256  # of the images in the shards; the same if the encoding is the original
    shard_bytes: _Sizes = field(default_factory=list)  # of every shard
    shard_sha256: _Sha256s = field(default_factory=list)  # of every shard
    index_sha256: _OfColumns = field(default_factory=dict)  # of every column's file
    order: Annotated[str, _ORDER.__eq__, repr(_ORDER)] = _ORDER
    format: Annotated[str, FORMAT.__eq__, repr(FORMAT)] = FORMAT
    version: Annotated[int, VERSION.__eq__, VERSION] = VERSION

    def as_json(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def settings(self) -> dict[str, str]:
        """The settings that determine every byte of the shards."""
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


def read_meta(path: Path, split: str, name: str = "") -> ShardMeta:
    """Read and check `<split>.json`; `name` stands for its path in messages, if given.

    Raises:
        FileNotFoundError: the file is missing.
        UserError: it cannot be read, is damaged, or has another version.
    """
    name = name or str(path)
    try:
        values = read_json(path)
        if not isinstance(values, dict):
            raise ValueError("it does not describe shards")
        kinds = get_type_hints(ShardMeta, include_extras=True)
        for key, kind in reversed(kinds.items()):  # the version first
            fits, what = kind.__metadata__
            if fits(values.get(key)) is not True:
                raise ValueError(f"{key} is not {what}: {_shown(values.get(key))}")
        for key in values.keys() - kinds.keys():
            raise ValueError(f"{key[:_SHOWN]!r} is not known")
        meta = ShardMeta(**values)
        if sum(meta.shard_bytes) > np.iinfo(np.int64).max:
            raise ValueError("shard_bytes are more than any disk holds")
        shards = -(-meta.images // meta.shard_size)
        if not (meta.split == split and len(meta.shard_bytes) == len(meta.shard_sha256) == shards):
            raise ValueError("its numbers of images and shards do not agree")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(
            f"data.root: {name} cannot be read ({first_line(error)}); {PREPARE_AGAIN}"
        ) from error
    except ValueError as error:
        raise UserError(f"data.root: {name} is damaged ({error}); {PREPARE_ANEW}") from error
    return meta


def _shown(value: Any) -> str:
    """The beginning of a JSON value, in ASCII, for messages."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content in hexadecimal digits; empty if it cannot be read."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # opening a pipe would wait forever
