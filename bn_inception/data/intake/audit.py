"""What is in a data set: every image read and decoded once, and what is odd named."""

import hashlib
import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bn_inception.data.config import DataConfig, DataKind, is_url, refuse_unread
from bn_inception.data.intake.findings import (
    CMYK,
    KINDS,
    MISNAMED,
    ORIENTED,
    TRUNCATED,
    UNREADABLE,
    Audit,
    Finding,
    SplitAudit,
)
from bn_inception.data.opening import open_sources
from bn_inception.data.parallel import Progress, unordered
from bn_inception.data.pixels.decode import FORMATS, UnreadableImage, decode
from bn_inception.data.shards import ShardSource, damaged_shards
from bn_inception.data.source import ImageSource
from bn_inception.errors import UserError
from bn_inception.files import first_line
from bn_inception.paper import results

_CHUNK = 256  # images a task: half a second of work
_ORIENTATION = 0x0112  # the EXIF tag
_WNID = re.compile(r"n\d{8}")
_DIGEST_BYTES = 32
_NOTHING = bytes(_DIGEST_BYTES)  # stands for the content of an image that cannot be read
_SUFFIX_FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg"), "JPEG"),
    **dict.fromkeys((".ppm", ".pgm"), "PPM"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **{f".{name.lower()}": name for name in ("PNG", "BMP", "GIF", "WEBP")},
}


def audit(config: DataConfig, progress: Progress) -> Audit:
    """Read and decode every image; change nothing.

    `config.on_error` and `config.backend` must be the defaults: every image is read whatever is
    wrong with it, by the reference. `config.workers` None is as many as cores.

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
    if config.kind is DataKind.imagenet or (
        config.kind is DataKind.shards and _is_named_as_imagenet(classes)
    ):
        result.problems += _counts(both) if config.first_classes is None else []
        result.problems += _names(classes)
    digests: dict[str, NDArray[np.uint8]] = {}
    for split, source in both.items():
        if isinstance(source, ShardSource):
            shown = partial(progress, f"{split}: checksums")
            damaged = damaged_shards(source, config.workers, shown)
            result.problems += [f"{path} differs from its checksum" for path in damaged]
        digests[split] = _read_all(result, split, source, config.workers, progress)
    for kind in (UNREADABLE, TRUNCATED):
        names = [finding.name for finding in result.findings if finding.kind == kind]
        if names:
            result.problems.append(
                f"{kind} images ({KINDS[kind]}): {len(names):,}, the first is {names[0]}"
            )
    result.duplicates = list(_duplicates(both, digests))
    return result


def _is_named_as_imagenet(classes: tuple[str, ...]) -> bool:
    """Whether shards, which may hold anything, are to be ImageNet's."""
    return len(classes) == results.IMAGENET_CLASSES and not _names(classes)


def _class_order(classes: tuple[str, ...]) -> str:
    if all(_WNID.fullmatch(name) for name in classes):
        how = "by wnid"
    elif all(name.isascii() and name.isdigit() for name in classes):
        how = "by value"
    else:
        how = "by name"
    return f"{how}: 0 is {classes[0]}, {len(classes) - 1} is {classes[-1]}"


def _counts(both: dict[str, ImageSource]) -> list[str]:
    """What differs from ImageNet (ILSVRC 2012)."""
    expected = {"train": results.IMAGENET_TRAIN_IMAGES, "val": results.IMAGENET_VALIDATION_IMAGES}
    problems = [
        f"{split} holds {len(source):,} images, ImageNet has {expected[split]:,}"
        for split, source in both.items()
        if len(source) != expected[split]
    ]
    classes = len(both["train"].classes)
    if classes != results.IMAGENET_CLASSES:
        problems.append(f"{classes:,} classes, ImageNet has {results.IMAGENET_CLASSES:,}")
    elif not problems:
        per_class = np.bincount(both["val"].labels, minlength=classes)
        if per_class.min() != per_class.max():
            label = int(np.argmax(per_class != results.IMAGENET_VALIDATION_IMAGES // classes))
            problems.append(
                f"val holds {per_class[label]} images of {both['val'].classes[label]}, ImageNet "
                "has 50 of every class: its labels are wrong"
            )
    return problems


def _names(classes: tuple[str, ...]) -> list[str]:
    odd = [name for name in classes if not _WNID.fullmatch(name)]
    if not odd:
        return []
    return [
        f"{len(odd):,} classes are not named by a wnid such as n01440764, the first is {odd[0]}: "
        "labels follow the order of the names, and will not be ImageNet's"
    ]


class _Image(NamedTuple):
    """What one look at an image gives."""

    number: int
    size: int
    digest: bytes
    width: int
    height: int
    format: str
    mode: str
    findings: list[tuple[str, str]]


def _read_all(
    result: Audit, split: str, source: ImageSource, workers: int | None, progress: Progress
) -> NDArray[np.uint8]:
    """Fill in what `split` holds; return the SHA-256 of every image, shape (images, 32)."""
    images, done = len(source), 0
    digests = np.zeros((images, _DIGEST_BYTES), np.uint8)
    formats: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    sums = np.zeros(3, np.int64)  # bytes, widths, heights
    found: list[tuple[int, str, str]] = []
    chunks = (range(i, min(i + _CHUNK, images)) for i in range(0, images, _CHUNK))
    progress(f"{split}: images", 0, images)
    for looks in unordered(partial(_look_at, source), chunks, workers):
        for look in looks:
            digests[look.number] = np.frombuffer(look.digest, np.uint8)
            sums += look.size, look.width, look.height
            found += [(look.number, kind, detail) for kind, detail in look.findings]
            if look.width:
                formats[look.format] += 1
                modes[look.mode] += 1
        done += len(looks)
        progress(f"{split}: images", done, images)
    result.findings += [
        Finding(split, source.name(index), kind, detail) for index, kind, detail in sorted(found)
    ]
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


def _look_at(source: ImageSource, indices: range) -> list[_Image]:
    return [_look(source, index) for index in indices]


def _look(source: ImageSource, index: int) -> _Image:
    """Read and decode one image; whatever is wrong with it is in the result."""
    try:
        data = source.read(index)
    except OSError as error:
        return _Image(index, 0, _NOTHING, 0, 0, "", "", [(UNREADABLE, first_line(error))])
    seen = index, len(data), hashlib.sha256(data).digest()
    try:
        decode(data, source.name(index))
    except UnreadableImage as error:
        kind = TRUNCATED if "truncated" in error.reason.lower() else UNREADABLE
        return _Image(*seen, 0, 0, "", "", [(kind, error.reason)])
    findings: list[tuple[str, str]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            found_format, mode = image.format or "", image.mode
            width, height = image.size
            orientation = _orientation(image)
    if mode == "CMYK":
        findings.append((CMYK, found_format))
    suffix = os.path.splitext(source.identity(index))[1].lower()
    named = _SUFFIX_FORMATS.get(suffix)
    # A camera's JPEG with a second picture in it is of Pillow's format MPO.
    if named is not None and named != ("JPEG" if found_format == "MPO" else found_format):
        findings.append((MISNAMED, f"{found_format}, named {suffix}"))
    if orientation not in (None, 1):
        findings.append((ORIENTED, str(orientation)))
    return _Image(*seen, width, height, found_format, mode, findings)


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # Pillow raises nearly anything at EXIF data that make no sense
        return None


def _duplicates(
    both: dict[str, ImageSource], digests: dict[str, NDArray[np.uint8]]
) -> Iterator[dict[str, list[str]]]:
    """Groups of images of one content that are in both splits."""
    keys = {split: table.view(f"V{_DIGEST_BYTES}").reshape(-1) for split, table in digests.items()}
    common = np.intersect1d(keys["train"], keys["val"])
    groups: dict[bytes, dict[str, list[str]]] = {
        key: {split: [] for split in both} for key in common.tolist() if key != _NOTHING
    }
    for split, source in both.items():
        for index in np.flatnonzero(np.isin(keys[split], common)).tolist():
            key = keys[split][index].tobytes()
            if key in groups:
                groups[key][split].append(source.name(index))
    yield from groups.values()
