"""The audit of a data set: every image is read and decoded once, and odd ones are named."""

import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bn_inception.data.config import DataConfig, refuse_unread
from bn_inception.data.opening import open_sources
from bn_inception.data.parallel import Progress, cores, produced
from bn_inception.data.pixels.decode import FORMATS, UnreadableImage, decode
from bn_inception.data.shards import ShardSource
from bn_inception.data.source import ImageSource
from bn_inception.errors import UserError
from bn_inception.files import file_sha256, first_line, is_url

NAMED = 10  # of a kind, on the terminal

_Look = tuple[int, bytes, str, str]
"""Of an image: bytes, SHA-256, kind ("JPEG RGB"), and why it cannot be read; or 0 and empty."""


def audit(config: DataConfig, progress: Progress) -> dict[str, Any]:
    """Read and decode every image; change nothing.

    The result is for JSON; bytes of names that are not UTF-8 are backslash escapes. `problems` is
    empty for a sound data set. `config.workers` None means one for each core.
    """
    refuse_unread(
        config,
        "audit",
        {
            "on_error": "leave it out: images that cannot be read are named, and the audit goes on",
            "backend": "leave it out: every image is decoded by Pillow, the reference",
        },
    )
    if is_url(config.root):
        raise UserError(
            f"data.root: {config.root}: audit reads a folder; audit the shards before they are "
            "copied there (what a run fetches is compared with its checksums)"
        )
    workers = cores() if config.workers is None else config.workers
    sources = open_sources(config)
    both = {"train": sources.train, "val": sources.validation}
    classes = sources.train.classes
    problems = list(sources.warnings)
    splits, unreadable, digests = dict[str, Any](), list[dict[str, str]](), list[NDArray[Any]]()
    for split, source in both.items():
        if isinstance(source, ShardSource):
            problems += _damaged(source, split, workers, progress)
        splits[split], bad, found = _read_all(split, source, workers, progress)
        unreadable += bad
        digests.append(found)
    if unreadable:
        problems.append(
            f"{len(unreadable):,} images cannot be read or decoded, the first is "
            f"{unreadable[0]['name']}"
        )
    shared = np.isin(digests[1], digests[0]) & (digests[1] != b"")
    result = {
        "data": config.kind.value,
        "root": config.root,
        "classes": len(classes),
        "labels": f"0 is {classes[0]}, {len(classes) - 1} is {classes[-1]}",
        "fingerprint": sources.fingerprint,
        "splits": splits,
        "unreadable": unreadable,
        "in_train_too": [both["val"].name(index) for index in np.flatnonzero(shared).tolist()],
        "problems": problems,
    }
    return dict(_plain(result))


def _damaged(source: ShardSource, split: str, workers: int, progress: Progress) -> Iterator[str]:
    wanted = source.description.shard_sha256
    progress(f"{split}: checksums", 0, len(wanted))
    for done, digest in enumerate(produced(file_sha256, source.files, workers)):
        progress(f"{split}: checksums", done + 1, len(wanted))
        if digest != wanted[done]:
            yield f"{source.files[done]} differs from its checksum"


def _read_all(
    split: str, source: ImageSource, workers: int, progress: Progress
) -> tuple[dict[str, Any], list[dict[str, str]], NDArray[Any]]:
    """What a split holds, its unreadable images, and the SHA-256 of every image."""
    images = len(source)
    digests, kinds, total = np.zeros(images, "S32"), Counter[str](), 0
    unreadable = list[dict[str, str]]()
    looks = produced(partial(_look, source), range(images), workers)
    progress(f"{split}: images", 0, images)
    for index, (size, digests[index], kind, reason) in enumerate(looks):
        total += size
        if reason:
            unreadable.append({"name": source.name(index), "reason": reason})
        else:
            kinds[kind] += 1
        progress(f"{split}: images", index + 1, images)
    per_class = np.bincount(source.labels, minlength=len(source.classes))
    about = {
        "images": images,
        "readable": kinds.total(),
        "smallest class": int(per_class.min()),
        "largest class": int(per_class.max()),
        "mean bytes": round(total / images),
        **dict(kinds.most_common()),
        # over the SHA-256 of every image's bytes, in the order of the indices
        "content sha256": hashlib.sha256(digests.tobytes()).hexdigest(),
    }
    return about, unreadable, digests


def _look(source: ImageSource, index: int) -> _Look:
    data, digest = b"", b""
    try:
        data = source.read(index)
        digest = hashlib.sha256(data).digest()
        decode(data, source.name(index))
    except OSError as error:
        return 0, digest, "", first_line(error)
    except UnreadableImage as error:
        return len(data), digest, "", error.reason
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return len(data), digest, f"{image.format} {image.mode}", ""


def _plain(value: Any) -> Any:
    """The same value with bytes of names that are not UTF-8 escaped, as in an image's identity.

    Files and terminals do not accept the surrogates of `os.fsdecode`.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def as_text(result: dict[str, Any]) -> str:
    """A table for people, with up to `NAMED` names of every kind."""
    splits = result["splits"]
    rows = dict.fromkeys(key for about in splits.values() for key in about)
    lines = [
        f"{result['root'] or result['data']} (data={result['data']})",
        f"classes      {result['classes']:,}, labels: {result['labels']}",
        f"fingerprint  {result['fingerprint']}",
        "",
        " " * 16 + "".join(f"{split:>16}" for split in splits),
    ]
    for key in rows:
        cells = (about.get(key, 0) for about in splits.values())
        texts = (cell[:12] if isinstance(cell, str) else f"{cell:,}" for cell in cells)
        lines.append(f"{key:16}" + "".join(f"{text:>16}" for text in texts))
    lists = {
        "unreadable": [f"{each['name']}: {each['reason']}" for each in result["unreadable"]],
        "in train too, byte for byte": result["in_train_too"],
    }
    for title, found in lists.items():
        if found:
            lines += ["", f"{title}: {len(found):,}", *(f"  {line}" for line in found[:NAMED])]
            lines += [f"  and {len(found) - NAMED:,} more"] if len(found) > NAMED else []
    problems = [f"problem: {problem}" for problem in result["problems"]]
    return "\n".join([*lines, "", *(problems or ["no problems: every image can be read"])])
