"""The audit of a data set: every image is read and decoded once, and odd ones are named."""

import hashlib
import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from bn_inception.data.config import DataConfig, DataKind, is_url, refuse_unread
from bn_inception.data.description import file_sha256
from bn_inception.data.folders import unlike_imagenet
from bn_inception.data.opening import open_sources
from bn_inception.data.parallel import Progress, cores, produced
from bn_inception.data.pixels.decode import FORMATS, UnreadableImage, decode
from bn_inception.data.shards import ShardSource
from bn_inception.data.source import ImageSource
from bn_inception.errors import UserError
from bn_inception.files import first_line
from bn_inception.paper import results

UNREADABLE, TRUNCATED = "unreadable", "truncated"
CMYK, MISNAMED, ORIENTED = "CMYK", "named otherwise", "EXIF orientation"
KINDS = {
    UNREADABLE: "cannot be read or decoded",
    TRUNCATED: "the file ends early",
    CMYK: "four colours of print; read, and converted without a colour profile",
    MISNAMED: "the name says another format; read all the same",
    ORIENTED: "stored turned; read upright",
}
"""Kinds of odd images, and how they are treated. The first two are problems."""

_CHUNK = 256  # images a task: half a second of work
_WNID = re.compile(r"n\d{8}")
_SUFFIX_FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg"), "JPEG"),
    **dict.fromkeys((".ppm", ".pgm"), "PPM"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **{f".{name.lower()}": name for name in ("PNG", "BMP", "GIF", "WEBP")},
}


@dataclass
class Finding:
    """One odd image."""

    split: str  # "train" or "val"
    name: str  # where it lies
    kind: str  # one of `KINDS`
    detail: str  # one line, such as the decoder's reason


@dataclass
class SplitAudit:
    """What one split holds."""

    images: int  # their number
    readable: int  # how many could be decoded
    smallest_class: int  # images in it
    largest_class: int
    mean_bytes: float  # of an encoded image
    mean_width: float  # pixels, of the readable ones, as stored
    mean_height: float
    formats: dict[str, int]  # images by format, such as "JPEG"
    modes: dict[str, int]  # images by pixel format, such as "RGB", "L" (greyscale), "CMYK"
    sha256: str  # over the SHA-256 of every image's bytes, in the order of the indices


@dataclass
class Audit:
    """What a data set holds, and what is wrong with it."""

    data: str  # its kind, as in data=
    root: str | None  # where it lies
    classes: int  # their number
    class_order: str  # how labels follow from names, with the first and last
    fingerprint: str  # as in the record of every run on this data: "<train>+<val>"
    splits: dict[str, SplitAudit] = field(default_factory=dict)  # by name, "train" and "val"
    findings: list[Finding] = field(default_factory=list)  # every odd image
    # groups of names of one content that are in train and val both
    duplicates: list[dict[str, list[str]]] = field(default_factory=list)
    # what must not be, one line each; empty for a sound data set
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; bytes of names that are not UTF-8 are written as backslash escapes."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def audit(config: DataConfig, progress: Progress) -> Audit:
    """Read and decode every image; change nothing.

    `config.on_error` and `config.backend` must be the defaults, because the reference reads every
    image, whatever is wrong with it. `config.workers` None means one for each core.

    Raises:
        UserError: the data set cannot be opened; a setting that is not read here.
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
    both: dict[str, ImageSource] = {"train": sources.train, "val": sources.validation}
    classes = sources.train.classes
    result = Audit(
        config.kind.value,
        config.root,
        len(classes),
        _class_order(classes),
        f"{sources.train.fingerprint()}+{sources.validation.fingerprint()}",
    )
    unlike = _unlike_imagenet(both, counted=config.first_classes is None)
    named = all(map(_WNID.fullmatch, classes)) and len(classes) == results.IMAGENET_CLASSES
    # Shards may hold any data set; they are compared with ImageNet if they have its classes.
    if config.kind is DataKind.imagenet or (config.kind is DataKind.shards and named):
        result.problems += unlike
    digests: dict[str, NDArray[np.void]] = {}
    for split, source in both.items():
        if isinstance(source, ShardSource):
            result.problems += _damaged(source, split, workers, progress)
        digests[split] = _read_all(result, split, source, workers, progress)
    for kind in (UNREADABLE, TRUNCATED):
        names = [finding.name for finding in result.findings if finding.kind == kind]
        if names:
            result.problems.append(
                f"{kind} images ({KINDS[kind]}): {len(names):,}, the first is {names[0]}"
            )
    result.duplicates = list(_duplicates(both, digests))
    return result


def _class_order(classes: tuple[str, ...]) -> str:
    if all(_WNID.fullmatch(name) for name in classes):
        how = "by wnid"
    elif all(name.isascii() and name.isdigit() for name in classes):
        how = "by value"
    else:
        how = "by name"
    return f"{how}: 0 is {classes[0]}, {len(classes) - 1} is {classes[-1]}"


def _unlike_imagenet(both: dict[str, ImageSource], counted: bool) -> Iterator[str]:
    """Differences from ImageNet (ILSVRC 2012)."""
    classes = both["train"].classes
    if counted:
        found = unlike_imagenet(
            len(classes), {split: len(source) for split, source in both.items()}
        )
        yield from found
        per_class = np.bincount(both["val"].labels, minlength=len(classes))
        for label in np.flatnonzero(per_class != per_class.mean())[:1] if not found else ():
            yield (
                f"val holds {per_class[label]} images of {classes[label]}, ImageNet "
                "has 50 of every class: its labels are wrong"
            )
    odd = [name for name in classes if not _WNID.fullmatch(name)]
    if odd:
        yield (
            f"{len(odd):,} classes are not named by a wnid such as n01440764, the first is "
            f"{odd[0]}: labels follow the order of the names, and will not be ImageNet's"
        )


def _damaged(source: ShardSource, split: str, workers: int, progress: Progress) -> Iterator[str]:
    paths = source.files.shards()
    progress(f"{split}: checksums", 0, len(paths))
    for done, digest in enumerate(produced(file_sha256, paths, workers)):
        if digest != source.meta.shard_sha256[done]:
            yield f"{paths[done]} differs from its checksum"
        progress(f"{split}: checksums", done + 1, len(paths))


@dataclass
class _Look:
    """The result of reading one image; fields that could not be read are empty."""

    size: int = 0
    digest: bytes = b""
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    findings: list[tuple[str, str]] = field(default_factory=list)


def _read_all(
    result: Audit, split: str, source: ImageSource, workers: int, progress: Progress
) -> NDArray[np.void]:
    """Fill in `split`; return the SHA-256 of every image, shape (images,)."""
    images, done = len(source), 0
    digests = np.zeros(images, "V32")
    formats, modes, sums = Counter[str](), Counter[str](), np.zeros(3, np.int64)
    chunks = [range(i, min(i + _CHUNK, images)) for i in range(0, images, _CHUNK)]
    progress(f"{split}: images", 0, images)
    for looks in produced(partial(_look_at, source), chunks, workers):
        for index, look in enumerate(looks, done):
            digests[index] = look.digest
            sums += look.size, look.width, look.height
            name = source.name(index)
            result.findings += [Finding(split, name, *found) for found in look.findings]
            if look.width:
                formats[look.format] += 1
                modes[look.mode] += 1
        done += len(looks)
        progress(f"{split}: images", done, images)
    per_class = np.bincount(source.labels, minlength=len(source.classes))
    readable = formats.total()
    size, width, height = sums.tolist()
    result.splits[split] = SplitAudit(
        images=images,
        readable=readable,
        smallest_class=int(per_class.min()),
        largest_class=int(per_class.max()),
        mean_bytes=size / max(images, 1),
        mean_width=width / max(readable, 1),
        mean_height=height / max(readable, 1),
        formats=dict(formats.most_common()),
        modes=dict(modes.most_common()),
        sha256=hashlib.sha256(digests.tobytes()).hexdigest(),
    )
    return digests


def _look_at(source: ImageSource, indices: range) -> list[_Look]:
    return [_look(source, index) for index in indices]


def _look(source: ImageSource, index: int) -> _Look:
    """Read and decode one image; the result says what is wrong with it."""
    try:
        data = source.read(index)
    except OSError as error:
        return _Look(findings=[(UNREADABLE, first_line(error))])
    look = _Look(len(data), hashlib.sha256(data).digest())
    try:
        decode(data, source.name(index))
    except UnreadableImage as error:
        kind = TRUNCATED if "truncated" in error.reason.lower() else UNREADABLE
        look.findings.append((kind, error.reason))
        return look
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            look.format, look.mode = image.format or "", image.mode
            look.width, look.height = image.size
            try:
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            except Exception:  # Pillow may raise anything for senseless EXIF data
                orientation = 1
    if look.mode == "CMYK":
        look.findings.append((CMYK, look.format))
    suffix = os.path.splitext(source.identity(index))[1].lower()
    # Pillow calls a camera's JPEG with a second picture in it MPO.
    if _SUFFIX_FORMATS.get(suffix) not in (None, look.format.replace("MPO", "JPEG")):
        look.findings.append((MISNAMED, f"{look.format}, named {suffix}"))
    if orientation != 1:
        look.findings.append((ORIENTED, str(orientation)))
    return look


def _duplicates(
    both: dict[str, ImageSource], digests: dict[str, NDArray[np.void]]
) -> Iterator[dict[str, list[str]]]:
    """Groups of images with the same content in both splits."""
    common = np.intersect1d(digests["train"], digests["val"])
    groups = {
        bytes(key): {split: list[str]() for split in both} for key in common if any(bytes(key))
    }
    for split, source in both.items():
        for index in np.flatnonzero(np.isin(digests[split], common)).tolist():
            key = bytes(digests[split][index])
            if key in groups:  # unreadable images have no content
                groups[key][split].append(source.name(index))
    yield from groups.values()


def _plain(value: Any) -> Any:
    """The same value with bytes of names that are not UTF-8 escaped, as in an image's identity.

    Files and terminals do not accept the surrogates of `os.fsdecode`.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def as_text(result: Audit, limit: int = 10) -> str:
    """A table for people, with up to `limit` names of every kind, escaped as in `Audit.as_dict`."""
    splits = result.splits.values()
    rows: dict[str, Iterable[object]] = {
        "": result.splits,
        "images": (f"{split.images:,}" for split in splits),
        "readable": (f"{split.readable:,}" for split in splits),
        "in a class": (f"{each.smallest_class:,} to {each.largest_class:,}" for each in splits),
        "mean bytes": (f"{split.mean_bytes:,.0f}" for split in splits),
        "mean size": (f"{split.mean_width:.0f} x {split.mean_height:.0f}" for split in splits),
        "content sha256": (split.sha256[:12] for split in splits),
    }
    for counts in ([split.formats for split in splits], [split.modes for split in splits]):
        for name in sorted({name for each in counts for name in each}):
            rows[name] = [f"{each.get(name, 0):,}" for each in counts]
    lines = [
        f"{result.root or result.data} (data={result.data})",
        f"classes      {result.classes:,}, labels {result.class_order}",
        f"fingerprint  {result.fingerprint}",
        "",
        *(f"{name:16}" + "".join(f"{cell:>16}" for cell in cells) for name, cells in rows.items()),
    ]
    lists = {
        f"{kind} ({meaning})": [f"{f.name}: {f.detail}" for f in result.findings if f.kind == kind]
        for kind, meaning in KINDS.items()
    }
    lists["in train and val both, byte for byte"] = [
        f"{group['train'][0]} = {group['val'][0]}" for group in result.duplicates
    ]
    for title, found in lists.items():
        if found:
            lines += ["", f"{title}: {len(found):,}", *(f"  {line}" for line in found[:limit])]
            lines += [f"  and {len(found) - limit:,} more"] if len(found) > limit else []
    problems = [f"problem: {problem}" for problem in result.problems]
    lines += ["", *(problems or ["no problems: every image can be read"])]
    text: str = _plain("\n".join(lines))
    return text
