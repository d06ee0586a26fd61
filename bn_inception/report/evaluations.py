"""The evaluations that were saved beside a run, or of an ensemble."""

from dataclasses import dataclass
from pathlib import Path

from bn_inception.errors import UserError
from bn_inception.fields import Fields, Fraction, read_object

_REMEDY = "give what bn-inception evaluate or ensemble has written"
_PAIR = tuple[float, float]
_ROWS = list[tuple[float, float, float]] | None


@dataclass(frozen=True)
class Evaluation:
    """One saved evaluation.

    Attributes:
        path: of the file.
        crops: of each image: 1, 10 or 144.
        statistics: of Batch Normalization: `running` or `population`; None where not said.
        models: networks averaged.
        count: images.
        top1_error, top5_error: fractions of `count`.
        top1_interval, top5_interval: 95 % intervals of them.
        accuracy_by_crops: (crops, top-1, top-5), accuracies as fractions of the first so many
            crops; empty where not measured.
        image_size: S in pixels of a crop; None where not said.
        data: fingerprint of the images; None where not said.
    """

    path: Path
    crops: int
    statistics: str | None
    models: int
    count: int
    top1_error: float
    top5_error: float
    top1_interval: tuple[float, float]
    top5_interval: tuple[float, float]
    accuracy_by_crops: tuple[tuple[int, float, float], ...] = ()
    image_size: int | None = None
    data: str | None = None

    def like(self, other: "Evaluation") -> bool:
        """Whether the same images were seen in the same way, by whatever networks."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("crops", "statistics", "count", "image_size", "data")
        )

    def in_words(self) -> str:
        """Networks, crops, errors and images."""
        low, high = self.top5_interval
        networks = "1 network" if self.models == 1 else f"{self.models} networks"
        crops = "1 crop" if self.crops == 1 else f"{self.crops} crops"
        return (
            f"{networks}, {crops}: top-1 error {100 * self.top1_error:.2f} %, top-5 error "
            f"{100 * self.top5_error:.2f} % ({100 * low:.2f} to {100 * high:.2f}), "
            f"{self.count:,} images"
        )


@dataclass(frozen=True)
class StabilityEdge:
    """The lowest rates at which short runs failed, on one scale.

    Attributes:
        path: of the file.
        scale: on which it was measured.
        says: for each network the lowest rate of each outcome, in words.
    """

    path: Path
    scale: str
    says: str

    def in_words(self) -> str:
        """What it says."""
        return self.says


def read_saved(path: str | Path) -> Evaluation | StabilityEdge:
    """Read an evaluation, of a network or of an ensemble, or a stability edge.

    Raises:
        UserError: missing, or neither.
    """
    path = Path(path)
    fields = read_object(path, _REMEDY)
    if fields.get("kind", str | None) != "stability_edge":
        return _evaluation(path, fields)
    lowest: dict[tuple[str, str], dict[int, float]] = {}
    for row in fields.get("rows", list[Fields]):
        seeds = lowest.setdefault((row.get("network", str), row.get("outcome", str)), {})
        seed, rate = row.get("seed", int), row.get("rate", float)
        seeds[seed] = min(rate, seeds.get(seed, rate))
    failures = {"nonfinite": "not finite", "stuck": "stuck at chance"}
    said = []
    for network in sorted({network for network, _ in lowest}):
        for outcome, words in failures.items():
            rates = lowest.get((network, outcome), {})
            at = ", ".join(f"{rates[seed]:.3g}" for seed in sorted(rates))
            said.append(f"{network} {words} from rate {at}" if at else f"{network} never {words}")
    return StabilityEdge(path, fields.get("scale", str), "; ".join(said))


def read_evaluations(folder: Path) -> tuple[Evaluation, ...]:
    """Read every evaluation below `folder`, by path; none where there is no such folder.

    Other JSON files there (without `top5_error`) are passed over.

    Raises:
        UserError: a broken file.
    """
    found = []
    for path in sorted(folder.rglob("*.json")):
        fields = read_object(path, _REMEDY)
        if "top5_error" in fields.values:
            found.append(_evaluation(path, fields))
    return tuple(found)


def _evaluation(path: Path, fields: Fields) -> Evaluation:
    crops = fields.get("crops", str)
    # A crop rule is called by its number of crops, all but one.
    count = "1" if crops == "single" else crops
    if not (count.isascii() and count.isdigit() and len(count) < 6):
        raise UserError(f"{path}: 'crops' is {crops!r}; expected single, or a number of crops")
    data = fields.get("data", Fields | None)
    return Evaluation(
        path=path,
        crops=int(count),
        statistics=fields.get("statistics", str | None),
        models=fields.get("models", int),
        count=fields.get("count", int),
        top1_error=fields.get("top1_error", Fraction),
        top5_error=fields.get("top5_error", Fraction),
        top1_interval=fields.get("top1_interval", _PAIR),
        top5_interval=fields.get("top5_interval", _PAIR),
        accuracy_by_crops=tuple(
            (int(crops), top1, top5)
            for crops, top1, top5 in fields.get("accuracy_by_crops", _ROWS) or []
        ),
        image_size=fields.get("image_size", int | None),
        data=None if data is None else data.get("fingerprint", str | None),
    )
