"""What was saved beside runs: evaluations, and the stability edge."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

from bn_inception.fields import Fields, Fraction, read_object

_REMEDY = "give what bn-inception evaluate, ensemble or experiments/stability_edge.py has written"


@dataclass(frozen=True)
class Evaluation:
    """One saved evaluation.

    Attributes:
        path: of the file.
        crops: of each image: `single`, `10` or `144`.
        statistics: of Batch Normalization: `running` or `population`; None where not said.
        models: networks averaged.
        count: images. Errors are fractions of it, with their 95 % intervals.
        image_size: S in pixels of a crop; None where not said.
        accuracy_by_crops: rows (crops averaged, top-1, top-5); None where not said.
        data: fingerprint of the images; None where not said.
    """

    path: Path
    crops: str
    statistics: str | None
    models: int
    count: int
    top1_error: Fraction
    top5_error: Fraction
    top1_interval: tuple[float, float]
    top5_interval: tuple[float, float]
    image_size: int | None = None
    accuracy_by_crops: list[tuple[int, Fraction, Fraction]] | None = None
    data: str | None = None

    def like(self, other: "Evaluation") -> bool:
        """Whether the same images were seen in the same way, by whatever networks."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("crops", "statistics", "count", "image_size", "data")
        )

    @property
    def says(self) -> str:
        """Networks, crops, errors and images."""
        low, high = self.top5_interval
        networks = "1 network" if self.models == 1 else f"{self.models} networks"
        crops = "1 crop" if self.crops == "single" else f"{self.crops} crops"
        return (
            f"{networks}, {crops}: top-1 error {100 * self.top1_error:.2f} %, top-5 error "
            f"{100 * self.top5_error:.2f} % ({100 * low:.2f} to {100 * high:.2f}), "
            f"{self.count:,} images"
        )


@dataclass(frozen=True)
class StabilityEdge:
    """Where short trainings on one scale break down.

    `says` has, by network and seed, the lowest rates that end in non-finite numbers, and apart from
    these at chance.
    """

    path: Path
    scale: str
    says: str


def read_saved(path: str | Path) -> Evaluation | StabilityEdge:
    """Read an evaluation, of a network or of an ensemble, or a stability edge; else UserError."""
    path = Path(path)
    fields = read_object(path, _REMEDY)
    if fields.values.get("kind") != "stability_edge":
        return _evaluation(path, fields)
    found: dict[str, dict[int, dict[str, list[float]]]] = {}
    for row in fields.get("rows", list[Fields]):
        ends = found.setdefault(row.get("network", str), {}).setdefault(row.get("seed", int), {})
        ends.setdefault(row.get("outcome", str), []).append(row.get("rate", float))
    said = []
    for network, by_seed in sorted(found.items()):
        seeds, ends_of_seeds = zip(*sorted(by_seed.items()), strict=True)
        nonfinite = _once([_lowest(ends.get("nonfinite", [])) for ends in ends_of_seeds])
        stuck = _once([_stuck(ends) for ends in ends_of_seeds])
        which = f"{network}, seed {', '.join(map(str, seeds))}"
        said.append(f"{which}: non-finite {nonfinite}; stuck at chance {stuck}")
    return StabilityEdge(path, fields.get("scale", str), ". ".join(said))


def _stuck(ends: dict[str, list[float]]) -> str:
    if "learns" not in ends:
        return "at every other rate tried"
    # Lower rates than one that learns may be stuck too, being slow.
    return _lowest([rate for rate in ends.get("stuck", []) if rate > max(ends["learns"])])


def _lowest(rates: list[float]) -> str:
    return f"from rate {min(rates):.3g}" if rates else "at no rate"


def _once(of_seeds: list[str]) -> str:
    return of_seeds[0] if len(set(of_seeds)) == 1 else ", ".join(of_seeds)


def read_evaluations(folder: Path) -> tuple[Evaluation, ...]:
    """Read every evaluation below `folder`, by path; other JSON files there are passed over."""
    files = [(path, read_object(path, _REMEDY)) for path in sorted(folder.rglob("*.json"))]
    return tuple(
        _evaluation(path, fields) for path, fields in files if "top5_error" in fields.values
    )


def _evaluation(path: Path, fields: Fields) -> Evaluation:
    images = fields.get("data", Fields | None)
    kinds = get_type_hints(Evaluation, include_extras=True)
    own = {name: kind for name, kind in kinds.items() if name not in ("path", "data")}
    return Evaluation(
        path=path,
        data=None if images is None else images.get("fingerprint", str | None),
        **{name: fields.get(name, kind) for name, kind in own.items()},
    )
