"""Saved predictions: which file is meant, its errors, and whether two networks differ."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bn_inception.errors import UserError
from bn_inception.record.predictions import TOP, Predictions, read_meta
from bn_inception.record.run_folder import refuse_links

RESAMPLES = 10_000
"""Of the bootstrap: the ends of a 95 % interval are then themselves steady to about 1 %."""


@dataclass(frozen=True)
class Errors:
    """Top-1 and top-5 errors among `count` images; unreadable images are always wrong."""

    wrong: int
    wrong_top5: int
    count: int

    @property
    def rates(self) -> dict[str, float]:
        """Errors as fractions."""
        return {"top1_error": self.wrong / self.count, "top5_error": self.wrong_top5 / self.count}

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: counts, fractions, and their 95 % intervals."""
        top1, top5 = (wilson_interval(n, self.count) for n in (self.wrong, self.wrong_top5))
        intervals = {"top1_interval": list(top1), "top5_interval": list(top5)}
        return {**asdict(self), **self.rates, **intervals}

    def lines(self) -> list[str]:
        """For a person, a line each for top-1 and top-5."""
        lines = []
        for name, wrong in (("top-1", self.wrong), ("top-5", self.wrong_top5)):
            low, high = wilson_interval(wrong, self.count)
            lines.append(
                f"{name} error {wrong / self.count:7.2%}  (95 %: {low:.2%} to {high:.2%}; "
                f"{wrong:,} of {self.count:,} images)"
            )
        return lines


def wilson_interval(wrong: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a rate (Wilson 1927), fractions in [0, 1]."""
    from scipy.stats import binomtest  # takes a second to load, and training asks for no interval

    interval = binomtest(wrong, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def prediction_file(
    path: str | Path, crops: str | None = None, statistics: str | None = None
) -> Path:
    """The predictions meant by `path`: the file itself, or one in a run folder's `evaluation/`.

    In a run folder it is the newest with the crops and statistics asked for. UserError where there
    is none, and where predictions were made in several ways and no choice among them was given.
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
    wanted = {"crops": crops, "statistics": statistics}
    asked = {key: value for key, value in wanted.items() if value is not None}
    metas = {file: read_meta(file) for file in files}
    fitting = [
        file
        for file, meta in metas.items()
        # A network without BN has no statistics, whichever are asked for.
        if all(meta.get(key) in (value, None) for key, value in asked.items())
    ]
    shown = [metas[file] for file in fitting or files]
    ways = {f"crops={meta.get('crops')} statistics={meta.get('statistics')}" for meta in shown}
    there = "; ".join(sorted(ways))
    if not fitting:
        missing = " ".join(f"{key}={value}" for key, value in asked.items())
        raise UserError(
            f"{path}: holds no predictions with {missing}, only {there}; evaluate it so"
        )
    if len(ways) > 1:
        raise UserError(f"{path}: holds predictions made in several ways ({there}); choose one")
    return fitting[-1]


def require_same_images(
    one: Predictions, other: Predictions, first_name: str, other_name: str
) -> None:
    """UserError with the first difference of two sets' images, labels or classes."""

    def refuse(what: str) -> NoReturn:
        raise UserError(f"{first_name} and {other_name}: {what}; evaluate both on the same data")

    if len(one) != len(other):
        refuse(f"{len(one)} and {len(other)} images")
    for at in np.flatnonzero(one.ids != other.ids):
        refuse(f"image {at + 1} is {one.ids[at]} in one and {other.ids[at]} in the other")
    classes, other_classes = one.probabilities.shape[1], other.probabilities.shape[1]
    if classes != other_classes:
        refuse(f"{classes} and {other_classes} classes")
    names, other_names = (made.meta.get("classes") or [] for made in (one, other))
    for number, (name, other_class) in enumerate(zip(names, other_names, strict=False)):
        if name != other_class:
            refuse(f"class {number} is {name} in one and {other_class} in the other")
    for at in np.flatnonzero(one.labels != other.labels):
        label, other_label = one.labels[at], other.labels[at]
        refuse(f"{one.ids[at]} has the label {label} in one and {other_label} in the other")


@dataclass(frozen=True)
class PairedDifference:
    """The second predictions against the first, image by image, by one measure of error.

    Attributes:
        errors: of the first and of the second, images.
        difference: error of the second minus error of the first, a fraction: negative if it is
            better; `interval` is its 95 % bootstrap interval.
        only_first: images that only the first gets right.
        p_value: two-sided, of McNemar's exact test (McNemar 1947): the chance that networks of
            equal error split the images on which they disagree at least so unevenly.
    """

    count: int
    errors: tuple[int, int]
    difference: float
    interval: tuple[float, float]
    only_first: int
    only_second: int
    p_value: float


def paired_differences(
    first: Predictions, second: Predictions, *, names: tuple[str, str], seed: int = 0
) -> tuple[PairedDifference, PairedDifference]:
    """Compare two networks, or two ways to evaluate one, by top-1 and by top-5 error.

    `names` are for errors, `seed` is the bootstrap's.
    """
    require_same_images(first, second, *names)
    ranks = first.ranks(), second.ranks()
    top1, top5 = (_difference(ranks[0] < place, ranks[1] < place, seed) for place in (1, TOP))
    return top1, top5


def _difference(first: NDArray[np.bool_], second: NDArray[np.bool_], seed: int) -> PairedDifference:
    """Of two networks that get each image right or not."""
    from scipy.stats import binomtest

    count = len(first)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    apart = only_first + only_second
    # Each image adds -1, 0 or 1 to the difference, so that drawing `count` images with replacement
    # is one draw from a multinomial of three outcomes.
    shares = np.array([only_first, only_second, count - apart]) / count
    drawn = np.random.default_rng(seed).multinomial(count, shares, RESAMPLES)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / count, [2.5, 97.5])
    return PairedDifference(
        count=count,
        errors=(int((~first).sum()), int((~second).sum())),
        difference=(only_first - only_second) / count,
        interval=(float(low), float(high)),
        only_first=only_first,
        only_second=only_second,
        p_value=float(binomtest(only_first, apart, 0.5).pvalue) if apart else 1.0,
    )
