"""Ensembles of saved predictions: the arithmetic mean of probabilities (BN section 4.2.3).

Nothing is evaluated again. A member of 50,000 images and 1000 classes takes 100 MB.
"""

import hashlib
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bn_inception.errors import UserError
from bn_inception.evaluation.saved import Errors, require_same_images
from bn_inception.record.predictions import TOP, Predictions, ranks, read_predictions

BLOCK = 256
"""Images compared at a time: 20 MB of 1000 float64 classes for ten members."""
MAX_MEMBERS = 10
"""Every subset is measured, and there are 2^members - 1 of them."""

Subset = tuple[int, ...]
"""Members by their numbers, ascending."""


@dataclass(frozen=True)
class Ensemble:
    """An ensemble and what became of every subset of it.

    Attributes:
        names: of the members.
        predictions: mean probabilities, rounded to float16; meta `members` names the members.
        subsets: errors of every non-empty subset, single members first, the whole ensemble last,
            counted on exact sums of the members' float16 probabilities.
    """

    names: tuple[str, ...]
    predictions: Predictions
    subsets: dict[Subset, Errors]

    @property
    def errors(self) -> Errors:
        """Those of the whole ensemble."""
        return self.subsets[tuple(range(len(self.names)))]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: setting and images, errors with 95 % intervals, members, every subset size."""
        meta = self.predictions.meta
        return {
            "crops": meta.get("crops"),
            "statistics": meta.get("statistics"),
            "models": len(self.names),
            **self.errors.as_dict(),
            **{key: meta[key] for key in ("image_size", "data") if key in meta},
            "members": [
                {"name": name, **self.subsets[(member,)].rates}
                for member, name in enumerate(self.names)
            ],
            "subsets": [self._of_size(models) for models in range(1, len(self.names) + 1)],
        }

    def _of_size(self, models: int) -> dict[str, Any]:
        """Best, mean and worst of the subsets of so many members, by top-1 error."""
        chosen = [pair for pair in self.subsets.items() if len(pair[0]) == models]
        chosen.sort(key=lambda pair: (pair[1].wrong, pair[1].wrong_top5, pair[0]))
        best, worst = (
            {"members": [self.names[member] for member in subset], **errors.rates}
            for subset, errors in (chosen[0], chosen[-1])
        )
        rates = [errors.rates for _, errors in chosen]
        mean = {key: statistics.fmean(rate[key] for rate in rates) for key in rates[0]}
        return {
            "models": models, "subsets": len(chosen), "best": best, "mean": mean, "worst": worst,
        }  # fmt: skip


def ensemble(paths: Sequence[str | Path], names: Sequence[str]) -> Ensemble:
    """Average the predictions in `paths`, 2 to MAX_MEMBERS files of the same labelled images.

    `names` is what to call the members. UserError names the first thing in which they do not fit.
    """
    if not 2 <= len(paths) <= MAX_MEMBERS:
        raise UserError(
            f"ensemble: {len(paths)} members given; allowed are 2 to {MAX_MEMBERS} prediction "
            "files or run folders"
        )
    members = [read_predictions(path) for path in paths]
    seen: dict[str, str] = {}
    for member, path in zip(members, map(str, paths), strict=True):
        _require_fits(member, path, members[0], str(paths[0]))
        for identity in _identities(member):
            if identity in seen:
                raise UserError(
                    f"{seen[identity]} and {path}: predictions of one and the same network; give "
                    "each member once"
                )
            seen[identity] = path
    ids, labels = members[0].ids, members[0].labels
    mean = np.empty(members[0].probabilities.shape, np.float16)
    numbers = range(len(members))
    wrong = {
        subset: np.zeros(2, np.int64)
        for size in numbers
        for subset in itertools.combinations(numbers, size + 1)
    }
    for start in range(0, len(labels), BLOCK):
        block = slice(start, start + BLOCK)
        # Conversions from and to float16 are torch's: numpy's take 10 to 100 times as long where
        # probabilities are below 2^-14, which most are. Members x images x classes.
        rows = torch.stack([torch.from_numpy(m.probabilities[block]) for m in members]).double()
        mean[block] = rows.mean(0).half().numpy()
        for subset, counted in wrong.items():
            # Multiples of 2^-24, which float64 adds exactly: the order of members decides nothing.
            places = ranks(rows.numpy()[list(subset)].sum(0), labels[block])
            counted += np.count_nonzero(places > 0), np.count_nonzero(places >= TOP)
    subsets = {
        subset: Errors(int(one), int(five), len(labels)) for subset, (one, five) in wrong.items()
    }
    return Ensemble(tuple(names), Predictions(ids, labels, mean, _meta(members, names)), subsets)


def _require_fits(member: Predictions, path: str, first: Predictions, first_path: str) -> None:
    # A mean of means would weigh networks unevenly, and might hold one of them twice.
    if "members" in member.meta:
        raise UserError(f"{path}: the mean of networks already; give their own predictions")
    require_same_images(first, member, first_path, path)
    for key in ("crops", "statistics"):
        one, other = first.meta.get(key), member.meta.get(key)
        if one != other:
            raise UserError(
                f"{first_path} and {path}: {key} are {one} in one and {other} in the other; "
                "evaluate all members in one way"
            )
    for image in np.flatnonzero(first.readable != member.readable):
        could, could_not = (first_path, path) if first.readable[image] else (path, first_path)
        raise UserError(
            f"{could} and {could_not}: {member.ids[image]} could be read for the one and not for "
            "the other; evaluate both on the same files"
        )


def _identities(member: Predictions) -> list[str]:
    """Of the network: the hash of its predictions, and its checkpoint's where it is recorded."""
    checkpoint = member.meta.get("checkpoint")
    known = checkpoint.get("sha256") if isinstance(checkpoint, dict) else None
    content = hashlib.sha256(member.probabilities.tobytes()).hexdigest()
    return [content] if known is None else [content, f"checkpoint {known}"]


def _meta(members: Sequence[Predictions], names: Sequence[str]) -> dict[str, Any]:
    # What the members were made with is theirs: only what all of them share is the ensemble's.
    shared = {
        key: value
        for key, value in members[0].meta.items()
        if key != "checkpoint" and all(member.meta.get(key) == value for member in members)
    }
    identities = sorted(_identities(member)[-1] for member in members)
    digest = hashlib.sha256("\n".join(identities).encode()).hexdigest()
    return {**shared, "checkpoint": {"sha256": digest}, "members": list(names)}
