"""Saved predictions: one `.npz` for a model, a data set and a crop setting.

The file holds four arrays and no pickle (`numpy.load(path, allow_pickle=False)` reads it):
`ids` (N,) text, `labels` (N,) int64, `probabilities` (N, classes) float16, and `meta`, a JSON
object as a text of no dimension. Nothing in it is compressed, so that rows can be read in place.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bn_inception.errors import UserError
from bn_inception.fields import parse_object
from bn_inception.files import write_bytes

FORMAT = 1
TOP = 5
"""Classes among which the label may be for an image to count as right."""
NEVER = int(np.iinfo(np.int64).max)
"""Rank of an image that could not be read: among the first k for no k."""

_REMEDY = "give an .npz file that bn-inception evaluate has written"
# float16 keeps 11 bits: each probability is off by at most 2^-12 of itself, or by 2^-25 where it
# is below 2^-14; over thousands of classes the sum stays well within this.
_SUM_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Predictions:
    """Class probabilities of N images.

    Attributes:
        ids: unicode (N,), each image's path below its split's folder, unique, with forward
            slashes: the same wherever the data set lies.
        labels: int64 (N,).
        probabilities: float16 (N, classes), each row a mean of softmax outputs (GN section 7), its
            sum about 1; all zeros for an image that could not be read.
        meta: what they were made with, JSON-able, as `bn-inception evaluate` writes it.
    """

    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float16]
    meta: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Which images could be read, bool (N,): the others count as errors."""
        return np.asarray(self.probabilities.any(axis=1))

    def ranks(self) -> NDArray[np.int64]:
        """Place of each image's label among its classes, int64 (N,), 0 for the likeliest.

        Of equal probabilities the lower class comes first. `NEVER` for an unreadable image.
        """
        return ranks(self.probabilities, self.labels)


def ranks(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """`Predictions.ranks` of probabilities (N, classes) of any precision and labels (N,)."""
    own = probabilities[np.arange(len(labels)), labels][:, None]
    before = np.arange(probabilities.shape[1])[None, :] < labels[:, None]
    place: NDArray[np.int64] = (probabilities > own).sum(axis=1) + (
        (probabilities == own) & before
    ).sum(axis=1)
    return np.where(probabilities.any(axis=1), place, NEVER)


def write_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write predictions to `path`, atomically."""
    meta = json.dumps({"format": FORMAT, **predictions.meta}, allow_nan=False)
    _check(predictions, str(path))
    buffer = io.BytesIO()
    np.savez(
        buffer,
        ids=predictions.ids,
        labels=predictions.labels,
        probabilities=predictions.probabilities,
        meta=np.array(meta),
    )
    write_bytes(Path(path), buffer.getvalue())


def read_predictions(path: str | Path) -> Predictions:
    """Read a file that `write_predictions` wrote; UserError for any other."""
    ids, labels, probabilities, meta = _read(Path(path), "ids", "labels", "probabilities", "meta")
    predictions = Predictions(ids, labels, probabilities, _meta(meta, str(path)))
    _check(predictions, str(path))
    return predictions


def read_meta(path: str | Path) -> dict[str, Any]:
    """Read only what a file of predictions says about itself."""
    (meta,) = _read(Path(path), "meta")
    return _meta(meta, str(path))


def _read(path: Path, *names: str) -> list[NDArray[Any]]:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {_REMEDY}")
    arrays: list[NDArray[Any]] = []
    try:
        file: Any = np.load(path, allow_pickle=False, mmap_mode="r")
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("one array, no .npz")
        with file:
            for name in names:
                if name not in file.files:
                    raise ValueError(f"it has no {name!r}")
                # Compressed, a small file could hold gigabytes; evaluate compresses nothing.
                assert file.zip is not None
                if file.zip.getinfo(f"{name}.npy").file_size > path.stat().st_size:
                    raise ValueError(f"{name!r} is longer than the file")
                arrays.append(file[name])
                if not arrays[-1].dtype.isnative:
                    raise ValueError(f"{name!r} is in the byte order of another machine")
    except Exception as error:
        # A damaged archive raises nearly anything: BadZipFile, zlib.error, ValueError, EOFError,
        # RuntimeError (a flipped bit says "encrypted"), MemoryError (a length of petabytes), ...
        reason = " ".join(str(error).split()) or type(error).__name__
        if "pickle" in reason:  # numpy advises to load it all the same
            reason = "it holds pickled objects, which are not read"
        raise UserError(f"{path}: not predictions ({reason}); {_REMEDY}") from error
    return arrays


def _meta(text: NDArray[Any], where: str) -> dict[str, Any]:
    if text.shape != () or text.dtype.kind != "U":
        raise UserError(f"{where}: 'meta' is no text; {_REMEDY}")
    fields = parse_object(str(text), f"{where}: 'meta'", _REMEDY)
    if (found := fields.values.get("format")) != FORMAT:
        raise UserError(f"{where}: predictions of format {found!r}, not {FORMAT}; {_REMEDY}")
    for key in ("crops", "statistics"):
        fields.get(key, str | None)
    return dict(fields.values)


def _check(predictions: Predictions, where: str) -> None:
    for fault in _faults(predictions):
        raise UserError(f"{where}: {fault}; {_REMEDY}")


def _faults(predictions: Predictions) -> Iterator[str]:
    """What is wrong, a clause each; what follows one takes it that there is none before."""
    ids, labels, probabilities = predictions.ids, predictions.labels, predictions.probabilities
    kinds = {"ids": (ids, "U", 1), "labels": (labels, "i8", 1)}
    kinds["probabilities"] = (probabilities, "f2", 2)
    for name, (array, kind, dimensions) in kinds.items():
        if kind not in (array.dtype.kind, array.dtype.str[1:]):
            yield f"{name!r} is of type {array.dtype}, not {kind}"
        if array.ndim != dimensions:
            yield f"{name!r} has the shape {array.shape}, not {dimensions} dimensions"
    if not len(ids) == len(labels) == len(probabilities) > 0:
        yield (
            f"{len(ids)} ids, {len(labels)} labels and {len(probabilities)} rows of probabilities; "
            "they must be as many, and at least one"
        )
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != len(ids):
        yield f"the id {unique[counts > 1][0]} is there twice"
    classes = probabilities.shape[1]
    named = predictions.meta.get("classes")
    if named is not None and (not isinstance(named, list) or len(named) != classes):
        yield f"{classes} columns of probabilities do not fit the named classes"
    for wrong in np.flatnonzero((labels < 0) | (labels >= classes)):
        yield f"{ids[wrong]} has the label {labels[wrong]}; allowed are 0 to {classes - 1}"
    # By blocks: a comparison of all rows at once would hold several copies of them.
    for start in range(0, len(ids), 4096):
        block = probabilities[start : start + 4096].astype(np.float32)
        sums = block.sum(axis=1)
        good = (block >= 0).all(axis=1) & ((sums == 0) | (np.abs(sums - 1) <= _SUM_TOLERANCE))
        for wrong in np.flatnonzero(~good):
            yield f"the row of {ids[start + wrong]} is no probabilities"
