"""What is in a data set: every image read and decoded once, and what is odd named."""

import hashlib
import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bn_inception.data.decode import FORMATS, UnreadableImage, decode
from bn_inception.data.parallel import Progress, unordered
from bn_inception.data.remote import is_url
from bn_inception.data.shards import ShardSource, damaged_files
from bn_inception.data.source import DataConfig, DataKind, ImageSource, open_sources, refuse_unread
from bn_inception.errors import UserError
from bn_inception.paper import results

_CHUNK = 256  # images a task: half a second of work
_ORIENTATION = 0x0112  # the EXIF tag
_WNID = re.compile(r"n\d{8}")
_DIGEST_BYTES = 32
_NOTHING = bytes(_DIGEST_BYTES)  # stands for the content of an image that cannot be read
_SUFFIX_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}

UNREADABLE, TRUNCATED = "unreadable", "truncated"
CMYK, MISNAMED, ORIENTED = "CMYK", "named otherwise", "EXIF orientation"
KINDS = {
    UNREADABLE: "cannot be read or decoded",
    TRUNCATED: "the file ends early",
    CMYK: "four colours of print; read, and converted without a colour profile",
    MISNAMED: "the name says another format; read all the same",
    ORIENTED: "stored turned; read upright",
}
"""What may be the matter with an image, and what becomes of it. The first two are problems."""


class Finding(NamedTuple):
    """One odd image.

    Attributes:
        split: "train" or "val".
        name: where it lies.
        kind: one of `KINDS`.
        detail: one line, such as the decoder's reason.
    """

    split: str
    name: str
    kind: str
    detail: str


@dataclass
class SplitAudit:
    """What one split holds.

    Attributes:
        images: their number.
        readable: how many could be decoded.
        smallest_class, largest_class: images in it.
        mean_bytes: of an encoded image.
        mean_width, mean_height: pixels, of the readable ones, as stored.
        formats: images by format, such as "JPEG".
        modes: images by pixel format, such as "RGB", "L" (greyscale), "CMYK".
        sha256: over the SHA-256 of every image's bytes, in the order of the indices.
    """

    images: int
    readable: int
    smallest_class: int
    largest_class: int
    mean_bytes: float
    mean_width: float
    mean_height: float
    formats: dict[str, int]
    modes: dict[str, int]
    sha256: str


@dataclass
class Audit:
    """What a data set holds, and what is wrong with it.

    Attributes:
        kind: of the data set, as in data=.
        root: where it lies.
        classes: their number.
        class_order: how labels follow from names, with the first and last.
        fingerprint: as in the record of every run on this data: "<train>+<val>".
        splits: by name, "train" and "val".
        findings: every odd image.
        duplicates: groups of names of one content that are in train and val both.
        problems: what must not be, one line each; empty for a sound data set.
    """

    kind: str
    root: str | None
    classes: int
    class_order: str
    fingerprint: str
    splits: dict[str, SplitAudit] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    duplicates: list[dict[str, list[str]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; bytes of names that are not UTF-8 are written as backslash escapes."""
        values = {
            "data": self.kind,
            "root": self.root,
            "classes": self.classes,
            "class_order": self.class_order,
            "fingerprint": self.fingerprint,
            "splits": {name: vars(split) for name, split in self.splits.items()},
            "findings": [finding._asdict() for finding in self.findings],
            "duplicates": self.duplicates,
            "problems": self.problems,
        }
        return {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    """The same value, of plain text: such bytes of a name as Python cannot print are escaped.

    As an image's identity is: what `os.fsdecode` made of them no file and no terminal takes.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def audit(config: DataConfig, progress: Progress) -> Audit:
    """Read and decode every image.

    Args:
        config: the data set; `workers` None is as many as cores. `on_error`, `backend` and
            `cache_gib` must be the defaults: every image is read whatever is wrong with it, by the
            reference, and from no URL.
        progress: told how far it is.

    Returns:
        What was found; nothing is changed.

    Raises:
        UserError: the data set cannot be opened, so there is nothing to read; a setting that is
            not read here.
    """
    refuse_unread(
        config,
        "audit",
        {
            "on_error": "leave it out: images that cannot be read are named, and the audit goes on",
            "backend": "leave it out: every image is decoded by Pillow, the reference",
            "cache_gib": "leave it out: no URL is read",
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
            result.problems += _damaged(source, config.workers, progress, split)
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
    expected = {
        "train": results.IMAGENET_TRAIN_IMAGES,
        "val": results.IMAGENET_VALIDATION_IMAGES,
    }
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


def _damaged(source: ShardSource, workers: int | None, progress: Progress, split: str) -> list[str]:
    def shown(done: int, total: int) -> None:
        progress(f"{split}: checksums", done, total)

    return [f"{path} differs from its checksum" for path in damaged_files(source, workers, shown)]


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
    images = len(source)
    digests = np.zeros((images, _DIGEST_BYTES), np.uint8)
    formats: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    total_bytes = total_width = total_height = readable = done = 0
    found: list[tuple[int, str, str]] = []
    chunks = (range(i, min(i + _CHUNK, images)) for i in range(0, images, _CHUNK))
    progress(f"{split}: images", 0, images)
    for looks in unordered(partial(_look_at, source), chunks, workers):
        for look in looks:
            digests[look.number] = np.frombuffer(look.digest, np.uint8)
            total_bytes += look.size
            found += [(look.number, kind, detail) for kind, detail in look.findings]
            if look.width:
                readable += 1
                total_width += look.width
                total_height += look.height
                formats[look.format] += 1
                modes[look.mode] += 1
        done += len(looks)
        progress(f"{split}: images", done, images)
    result.findings += [
        Finding(split, source.name(index), kind, detail) for index, kind, detail in sorted(found)
    ]
    per_class = np.bincount(source.labels, minlength=len(source.classes))
    result.splits[split] = SplitAudit(
        images=images,
        readable=readable,
        smallest_class=int(per_class.min()),
        largest_class=int(per_class.max()),
        mean_bytes=total_bytes / max(images, 1),
        mean_width=total_width / max(readable, 1),
        mean_height=total_height / max(readable, 1),
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
        reason = error.strerror or str(error)
        return _Image(index, 0, _NOTHING, 0, 0, "", "", [(UNREADABLE, reason)])
    digest = hashlib.sha256(data).digest()
    try:
        decode(data, source.name(index))
    except UnreadableImage as error:
        kind = TRUNCATED if "truncated" in error.reason.lower() else UNREADABLE
        return _Image(index, len(data), digest, 0, 0, "", "", [(kind, error.reason)])
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
    return _Image(index, len(data), digest, width, height, found_format, mode, findings)


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


def as_text(result: Audit, limit: int = 10) -> str:
    """A table for people; names are escaped as in `Audit.as_dict`.

    Args:
        result: of `audit`.
        limit: names shown of every kind.
    """
    lines = [
        f"{result.root or result.kind} (data={result.kind})",
        f"classes      {result.classes:,}, labels {result.class_order}",
        f"fingerprint  {result.fingerprint}",
        "",
        f"{'':16}" + "".join(f"{name:>16}" for name in result.splits),
    ]
    splits = result.splits.values()
    rows: list[tuple[str, Callable[[SplitAudit], str]]] = [
        ("images", lambda split: f"{split.images:,}"),
        ("readable", lambda split: f"{split.readable:,}"),
        ("in a class", lambda split: f"{split.smallest_class:,} to {split.largest_class:,}"),
        ("mean bytes", lambda split: f"{split.mean_bytes:,.0f}"),
        ("mean size", lambda split: f"{split.mean_width:.0f} x {split.mean_height:.0f}"),
        ("content sha256", lambda split: split.sha256[:12]),
    ]
    lines += [f"{name:16}" + "".join(f"{show(s):>16}" for s in splits) for name, show in rows]
    for what in ("formats", "modes"):
        for name in sorted({key for split in splits for key in getattr(split, what)}):
            counts = (getattr(split, what).get(name, 0) for split in splits)
            lines.append(f"{name:16}" + "".join(f"{count:>16,}" for count in counts))
    for kind, meaning in KINDS.items():
        found = [finding for finding in result.findings if finding.kind == kind]
        if found:
            lines += ["", f"{kind} ({meaning}): {len(found):,}"]
            lines += [f"  {finding.name}: {finding.detail}" for finding in found[:limit]]
            lines += _more(len(found), limit)
    if result.duplicates:
        lines += ["", f"in train and val both, byte for byte: {len(result.duplicates):,}"]
        for group in result.duplicates[:limit]:
            lines.append(f"  {group['train'][0]} = {group['val'][0]}")
        lines += _more(len(result.duplicates), limit)
    lines.append("")
    if result.problems:
        lines += [f"problem: {problem}" for problem in result.problems]
    else:
        lines.append("no problems: every image can be read")
    text: str = _plain("\n".join(lines))
    return text


def _more(found: int, limit: int) -> list[str]:
    return [f"  and {found - limit:,} more"] if found > limit else []
