"""`bn-inception ensemble` and `difference`: saved predictions, put together and compared."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bn_inception.cli.command import Call, command, output_file
from bn_inception.errors import UserError, require_at_least
from bn_inception.evaluation.ensemble import Ensemble
from bn_inception.evaluation.ensemble import ensemble as mean_of
from bn_inception.evaluation.saved import PairedDifference, paired_differences, prediction_file
from bn_inception.files import write_json
from bn_inception.record import read_predictions, write_predictions


@dataclass
class SavedConfig:
    """What both commands take: which predictions of a run folder are meant, and where to write."""

    crops: str | None = None
    statistics: str | None = None
    output: str | None = None

    def files(self, paths: Sequence[str]) -> list[Path]:
        """The predictions that `paths` mean."""
        return [prediction_file(path, self.crops, self.statistics) for path in paths]


@dataclass
class EnsembleConfig(SavedConfig):
    """The keys of `configs/ensemble.yaml`."""

    members: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.output is not None and not self.output.endswith(".npz"):
            raise UserError(f"output: {self.output}; give the name of an .npz file")


@command("ensemble", EnsembleConfig, plain="members")
def ensemble(call: Call[EnsembleConfig]) -> None:
    """Print errors of the mean of predictions and of every subset of them; write the mean."""
    config = call.config
    output = output_file(config.output)
    result = mean_of(config.files(config.members), _names(config.members))
    print(_ensemble_text(result))
    if output is not None:
        write_predictions(output, result.predictions)
        write_json(output.with_suffix(".json"), result.as_dict())
        print(output, output.with_suffix(".json"), sep="\n")


def _names(paths: Sequence[str]) -> list[str]:
    """What to call members: their own names, with the folder before it where two are the same."""
    own = [Path(path).resolve() for path in paths]
    names = [path.name.removesuffix(".npz") for path in own]
    return [
        f"{path.parent.name}/{name}" if names.count(name) > 1 else name
        for path, name in zip(own, names, strict=True)
    ]


def _ensemble_text(result: Ensemble) -> str:
    """The whole ensemble's errors with 95 % intervals, and a table by number of models."""
    crops = result.predictions.meta.get("crops")
    lines = [
        f"{len(result.names)} models, {result.errors.count:,} images, crops={crops}",
        *result.errors.lines(),
        "",
        "models  subsets   top-1 best    mean   worst   top-5 of them  best subset",
    ]
    for size in result.as_dict()["subsets"]:
        top1, top5 = (
            " ".join(f"{size[which][key]:7.2%}" for which in ("best", "mean", "worst"))
            for key in ("top1_error", "top5_error")
        )
        members = " ".join(size["best"]["members"])
        lines.append(f"{size['models']:6}  {size['subsets']:7}      {top1}  {top5}  {members}")
    return "\n".join(lines)


@dataclass
class DifferenceConfig(SavedConfig):
    """The keys of `configs/difference.yaml`."""

    predictions: list[str] = field(default_factory=list)
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.predictions) != 2:
            raise UserError(
                f"difference: {len(self.predictions)} predictions given; give two .npz files or "
                "run folders"
            )
        require_at_least("seed", self.seed, 0)


@command("difference", DifferenceConfig, plain="predictions")
def difference(call: Call[DifferenceConfig]) -> None:
    """Compare two predictions image by image."""
    config = call.config
    output = output_file(config.output)
    one, other = config.predictions
    first, second = map(read_predictions, config.files(config.predictions))
    top1, top5 = paired_differences(first, second, names=(one, other), seed=config.seed)
    one, other = _names(config.predictions)
    print(f"{top1.count:,} images; difference = {other} minus {one}")
    print(*_difference_lines("top-1", top1), *_difference_lines("top-5", top5), sep="\n")
    if output is not None:
        both = {"top1": asdict(top1), "top5": asdict(top5)}
        write_json(output, {"first": one, "second": other, "count": top1.count, **both})
        print(output)


def _difference_lines(name: str, measured: PairedDifference) -> list[str]:
    """Both errors, their difference with its interval, and McNemar's p-value."""
    low, high = measured.interval
    one, other = (error / measured.count for error in measured.errors)
    return [
        f"{name} error {one:.2%} and {other:.2%}: difference {measured.difference:+.2%} "
        f"(95 %: {low:+.2%} to {high:+.2%})",
        f"  only the first right: {measured.only_first:,}, only the second: "
        f"{measured.only_second:,}; McNemar's exact test: p = {measured.p_value:.3g}",
    ]
