"""Evaluations that were saved: of a run in its folder, of an ensemble where it was asked for."""

from dataclasses import dataclass
from pathlib import Path

from bn_inception.fields import Fields, Fraction, read_object

_REMEDY = "give what bn-inception evaluate or ensemble has written"


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


def read_evaluation(path: str | Path) -> Evaluation:
    """Read an evaluation, of a network or of an ensemble; UserError where it is none."""
    path = Path(path)
    return _evaluation(path, read_object(path, _REMEDY))


def read_evaluations(folder: Path) -> tuple[Evaluation, ...]:
    """Read every evaluation below `folder`, by path; other JSON files there are passed over."""
    files = [(path, read_object(path, _REMEDY)) for path in sorted(folder.rglob("*.json"))]
    return tuple(
        _evaluation(path, fields) for path, fields in files if "top5_error" in fields.values
    )


def _evaluation(path: Path, fields: Fields) -> Evaluation:
    images = fields.get("data", Fields | None)
    data = None if images is None else images.get("fingerprint", str | None)
    return fields.as_(Evaluation, path=path, data=data)
