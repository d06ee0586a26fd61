"""Ensembles of saved predictions: the arithmetic mean of probabilities (BN section 4.2.3).

Nothing is evaluated again. The files are read side by side in blocks of `BLOCK` images, so that
memory does not grow with the number of members: at 50,000 images of 1000 classes it stays under
0.5 GB, most of it the ensemble's own predictions (float16, 100 MB) and their copy on the way to
the disk. Six members take seconds.
"""

import hashlib
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bn_inception.errors import UserError
from bn_inception.record import UNLABELLED, Predictions, read_predictions
from bn_inception.record.interval import wilson_interval
from bn_inception.record.predictions import NEVER, read_meta
from bn_inception.record.run_folder import refuse_links

BLOCK = 256
"""Images read at a time from each member: 5 MB of 1000 float16 classes for ten members."""
MAX_MEMBERS = 10
"""Every subset is measured, and there are 2^members - 1 of them."""
TOP = 5

# Conversions from and to float16 are torch's: numpy's take 10 to 100 times as long where
# probabilities are below 2^-14, which most are.
# Every float16 in [0, 1] is a multiple of 2^-24, so that sums of up to 2^7 of them are exact as
# int32: an image's rank does not depend on the order in which members are added.
_UNITS = float(1 << 24)
_MEMBER = "probabilities.npy"


@dataclass(frozen=True)
class Errors:
    """Images whose label is not the likeliest class, or not among the five likeliest, of `count`.

    Attributes:
        wrong: top-1 errors.
        wrong_top5: top-5 errors.
        count: images, unreadable ones (always wrong) among them.
    """

    wrong: int
    wrong_top5: int
    count: int

    @property
    def top1(self) -> float:
        """Top-1 error, a fraction."""
        return self.wrong / self.count

    @property
    def top5(self) -> float:
        """Top-5 error, a fraction."""
        return self.wrong_top5 / self.count


@dataclass(frozen=True)
class Subset:
    """The ensemble of some members, by their numbers in ascending order."""

    members: tuple[int, ...]
    errors: Errors


@dataclass(frozen=True)
class Ensemble:
    """An ensemble and what became of every subset of it.

    Attributes:
        names: of the members.
        predictions: mean probabilities, rounded to float16; meta `members` names the members.
        subsets: every non-empty subset, single members first, the whole ensemble last. Errors are
            counted on exact sums of the members' float16 probabilities; of equal ones the lower
            class number is first.
    """

    names: tuple[str, ...]
    predictions: Predictions
    subsets: tuple[Subset, ...]

    @property
    def errors(self) -> Errors:
        """Those of the whole ensemble."""
        return self.subsets[-1].errors

    def of_size(self, models: int) -> list[Subset]:
        """The subsets of `models` members, the lowest top-1 error first."""
        chosen = [subset for subset in self.subsets if len(subset.members) == models]
        return sorted(chosen, key=lambda s: (s.errors.wrong, s.errors.wrong_top5, s.members))

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: setting and images, errors with 95 % intervals, members, every subset size."""
        meta, errors = self.predictions.meta, self.errors
        return {
            "crops": meta.get("crops"),
            "statistics": meta.get("statistics"),
            "models": len(self.names),
            "count": errors.count,
            "wrong": errors.wrong,
            "wrong_top5": errors.wrong_top5,
            "top1_error": errors.top1,
            "top5_error": errors.top5,
            "top1_interval": list(wilson_interval(errors.wrong / errors.count, errors.count)),
            "top5_interval": list(wilson_interval(errors.wrong_top5 / errors.count, errors.count)),
            **{key: meta[key] for key in ("image_size", "data") if key in meta},
            "members": [
                {"name": name, "top1_error": single.errors.top1, "top5_error": single.errors.top5}
                for name, single in zip(self.names, self.subsets, strict=False)
            ],
            "subsets": [self._size(models) for models in range(1, len(self.names) + 1)],
        }

    def _size(self, models: int) -> dict[str, Any]:
        subsets = self.of_size(models)

        def described(subset: Subset) -> dict[str, Any]:
            return {
                "members": [self.names[member] for member in subset.members],
                "top1_error": subset.errors.top1,
                "top5_error": subset.errors.top5,
            }

        return {
            "models": models,
            "subsets": len(subsets),
            "best": described(subsets[0]),
            "mean": {
                "top1_error": math.fsum(s.errors.top1 for s in subsets) / len(subsets),
                "top5_error": math.fsum(s.errors.top5 for s in subsets) / len(subsets),
            },
            "worst": described(subsets[-1]),
        }


def ensemble(paths: Sequence[str | Path], names: Sequence[str]) -> Ensemble:
    """Average the predictions in `paths`, 2 to MAX_MEMBERS files of the same labelled images.

    Args:
        paths: files that `bn-inception evaluate` has written.
        names: what to call the members, one a file.

    Raises:
        UserError: a file that is not such predictions, or already an ensemble's; too few or too
            many; a member given twice; other images, labels, classes, crops or statistics than the
            first member's, or images that only some members could read. The first difference is
            named.
    """
    if not 2 <= len(paths) <= MAX_MEMBERS:
        raise UserError(
            f"ensemble: {len(paths)} members given; allowed are 2 to {MAX_MEMBERS} prediction "
            "files or run folders"
        )
    files = [Path(path) for path in paths]
    ids, labels, metas = _check_members(files)
    count = len(labels)
    masks = 1 << len(files)
    wrong, wrong_top5 = np.zeros(masks, np.int64), np.zeros(masks, np.int64)
    with ExitStack() as stack:
        readers = [_Rows(stack, path) for path in files]
        mean = np.empty((count, readers[0].classes), np.float16)
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            # members x images x classes
            units = np.stack([reader.next(stop - start) for reader in readers])
            mean[start:stop] = _as_half(units.sum(0), _UNITS * len(files))
            _require_same_readable(units, files, ids[start:stop])
            for mask, ranks in _subset_ranks(units, labels[start:stop]):
                wrong[mask] += np.count_nonzero(ranks > 0)
                wrong_top5[mask] += np.count_nonzero(ranks >= TOP)
    subsets = [
        Subset(
            tuple(member for member in range(len(files)) if mask >> member & 1),
            Errors(int(wrong[mask]), int(wrong_top5[mask]), count),
        )
        for mask in range(1, masks)
    ]
    subsets.sort(key=lambda subset: (len(subset.members), subset.members))
    predictions = Predictions(ids, labels, mean, _meta(metas, names))
    return Ensemble(tuple(names), predictions, tuple(subsets))


def prediction_file(
    path: str | Path, crops: str | None = None, statistics: str | None = None
) -> Path:
    """The predictions meant by `path`: the file itself, or one in a run folder's `evaluation/`.

    Args:
        path: an .npz file or a run folder.
        crops: of a run folder, only predictions with this crop setting.
        statistics: of a run folder, only predictions with these BN statistics.

    Returns:
        In a run folder the newest that fits.

    Raises:
        UserError: nothing there, nothing that fits, or predictions made in several ways and no
            choice among them.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    refuse_links(path)
    files = sorted((path / "evaluation").glob("*.npz"), key=lambda file: file.stat().st_mtime_ns)
    if not files:
        raise UserError(
            f"{path}: holds no predictions (evaluation/*.npz); make them with bn-inception "
            f"evaluate run={path}"
        )
    ways = {file: _way(file) for file in files}
    fitting = [
        file
        for file, (its_crops, its_statistics) in ways.items()
        if crops in (None, its_crops) and statistics in (None, its_statistics)
    ]
    found = {ways[file] for file in (fitting or files)}
    there = "; ".join(sorted(f"crops={c} statistics={s}" for c, s in found))
    if not fitting:
        wanted = " ".join(
            f"{key}={value}"
            for key, value in (("crops", crops), ("statistics", statistics))
            if value is not None
        )
        raise UserError(f"{path}: holds no predictions with {wanted}, only {there}; evaluate it so")
    if len(found) > 1:
        raise UserError(f"{path}: holds predictions made in several ways ({there}); choose one")
    return fitting[-1]


def _way(file: Path) -> tuple[object, object]:
    meta = read_meta(file)
    return meta.get("crops"), meta.get("statistics")


def require_same_images(
    one: Predictions, other: Predictions, first_name: str, other_name: str
) -> None:
    """Refuse two sets of predictions that are not of the same labelled images and classes.

    Raises:
        UserError: the first difference, or the first image without a label.
    """
    between = f"{first_name} and {other_name}"
    remedy = "evaluate both on the same data set"
    if len(one) != len(other):
        raise UserError(f"{between}: {len(one)} and {len(other)} images; {remedy}")
    differing = np.flatnonzero(one.ids != other.ids)
    if len(differing):
        at = differing[0]
        raise UserError(
            f"{between}: image {at + 1} is {one.ids[at]} in one and {other.ids[at]} in the other; "
            f"{remedy}"
        )
    classes, other_classes = one.probabilities.shape[1], other.probabilities.shape[1]
    if classes != other_classes:
        raise UserError(f"{between}: {classes} and {other_classes} classes; {remedy}")
    names, other_names = one.meta.get("classes"), other.meta.get("classes")
    if names is not None and other_names is not None and names != other_names:
        at = next(i for i in range(classes) if names[i] != other_names[i])
        raise UserError(
            f"{between}: class {at} is {names[at]} in one and {other_names[at]} in the other; "
            f"{remedy}"
        )
    differing = np.flatnonzero(one.labels != other.labels)
    if len(differing):
        at = differing[0]
        raise UserError(
            f"{between}: {one.ids[at]} has the label {one.labels[at]} in one and "
            f"{other.labels[at]} in the other; {remedy}"
        )
    unlabelled = np.flatnonzero(one.labels == UNLABELLED)
    if len(unlabelled):
        raise UserError(
            f"{between}: {one.ids[unlabelled[0]]} has no label, so that there are no errors to "
            "count; for unlabelled images see bn-inception submission"
        )


def _check_members(
    files: Sequence[Path],
) -> tuple[NDArray[np.str_], NDArray[np.int64], list[dict[str, Any]]]:
    """Check every file against the first, two at a time in memory; ids, labels, and every meta."""
    first = read_predictions(files[0])
    metas = [first.meta]
    seen = {_identity(files[0], first.meta): files[0]}
    contents = {_content(files[0]): files[0]}
    _require_single(files[0], first)
    for path in files[1:]:
        other = read_predictions(path)
        _require_single(path, other)
        require_same_images(first, other, str(files[0]), str(path))
        for key in ("crops", "statistics"):
            if first.meta.get(key) != other.meta.get(key):
                raise UserError(
                    f"{files[0]} and {path}: {key} are {first.meta.get(key)} in one and "
                    f"{other.meta.get(key)} in the other; evaluate all members in one way"
                )
        identity, content = _identity(path, other.meta), _content(path)
        before = seen.get(identity) or contents.get(content)
        if before is not None:
            raise UserError(
                f"{before} and {path}: predictions of one and the same network; give each member "
                "once"
            )
        seen[identity] = contents[content] = path
        metas.append(other.meta)
    return first.ids, first.labels, metas


def _require_single(path: Path, predictions: Predictions) -> None:
    # A mean of means would weigh networks unevenly, and might hold one of them twice.
    if "members" in predictions.meta:
        raise UserError(
            f"{path}: the mean of {len(predictions.meta['members'])} networks already; give their "
            "own predictions"
        )


def _identity(path: Path, meta: dict[str, Any]) -> str:
    """The network: its checkpoint's hash, or the file where that is not recorded."""
    checkpoint = meta.get("checkpoint")
    if isinstance(checkpoint, dict):
        checkpoint = checkpoint.get("sha256")
    return str(path.resolve()) if checkpoint is None else f"sha256 {checkpoint}"


def _content(path: Path) -> tuple[int, int]:
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(_MEMBER)
    return info.CRC, info.file_size


def _meta(metas: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    # What the members were made with is theirs: only what all of them share is the ensemble's.
    shared = {
        key: value
        for key, value in metas[0].items()
        if key != "checkpoint" and all(meta.get(key) == value for meta in metas)
    }
    identities = [_identity(Path(name), meta) for name, meta in zip(names, metas, strict=True)]
    digest = hashlib.sha256("\n".join(sorted(identities)).encode()).hexdigest()
    return {**shared, "checkpoint": {"sha256": digest}, "members": list(names)}


class _Rows:
    """The probabilities of one file in order, without holding them all."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        archive = stack.enter_context(zipfile.ZipFile(path))
        self._file = stack.enter_context(archive.open(_MEMBER))
        version = np.lib.format.read_magic(self._file)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        (_, self.classes), by_column, self._dtype = read_header(self._file)
        if by_column:
            raise UserError(
                f"{path}: its probabilities are stored column by column; save them in C order"
            )

    def next(self, rows: int) -> NDArray[np.int32]:
        """The next rows, (rows, classes), in units of 2^-24."""
        data = self._file.read(rows * self.classes * self._dtype.itemsize)
        # A copy, since torch wants memory that may be written.
        block = torch.from_numpy(np.frombuffer(bytearray(data), self._dtype))
        units: NDArray[np.int32] = block.float().mul_(_UNITS).int().numpy()
        return units.reshape(rows, self.classes)


def _as_half(units: NDArray[np.int64], one: float) -> NDArray[np.float16]:
    half: NDArray[np.float16] = torch.from_numpy(units).double().div_(one).half().numpy()
    return half


def _require_same_readable(
    units: NDArray[np.int32], files: Sequence[Path], ids: NDArray[np.str_]
) -> None:
    readable: NDArray[np.bool_] = np.asarray(units.any(axis=2))
    differing = np.argwhere(readable != readable[0])
    if len(differing):
        member, image = differing[0]
        could, could_not = (
            (files[0], files[member]) if readable[0, image] else (files[member], files[0])
        )
        raise UserError(
            f"{could} and {could_not}: {ids[image]} could be read for the one and not for the "
            "other; evaluate both on the same files"
        )


def _subset_ranks(
    units: NDArray[np.int32], labels: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each subset, as a mask of members, with its ranks (images,) of the labels.

    A class that no member puts before the label is before it in no subset: only the others are
    summed, a few an image where the members are good, so that 63 subsets cost little more than one.
    """
    members, images, classes = units.shape
    lead = units - units[:, np.arange(images), labels][:, :, None]
    # Of equal probabilities the lower class number comes first.
    needed = (np.arange(classes)[None, :] >= labels[:, None]).astype(np.int32)
    rows, columns = np.nonzero((lead >= needed).any(axis=0))
    lead, needed = lead[:, rows, columns], needed[rows, columns]
    unreadable = ~units[0].any(axis=1)

    def grow(
        mask: int, total: NDArray[np.int32], first: int
    ) -> Iterator[tuple[int, NDArray[np.int64]]]:
        for member in range(first, members):
            grown = total + lead[member]
            ranks = np.bincount(rows[grown >= needed], minlength=images)
            ranks[unreadable] = NEVER
            yield mask | 1 << member, ranks
            yield from grow(mask | 1 << member, grown, member + 1)

    yield from grow(0, np.zeros(len(rows), np.int32), 0)
