"""What an audit found, as data and as text."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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

    kind: str  # of the data set, as in data=
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
        values = {"data": self.kind, **vars(self)}
        del values["kind"]
        values["splits"] = {name: vars(split) for name, split in self.splits.items()}
        values["findings"] = [finding._asdict() for finding in self.findings]
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


def as_text(result: Audit, limit: int = 10) -> str:
    """A table for people: `limit` names of every kind, escaped as in `Audit.as_dict`."""
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
