"""`bn-inception difference`: two predictions of the same images, compared image by image."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bn_inception.cli.command import Call, Command
from bn_inception.cli.output import output_file
from bn_inception.errors import UserError

if TYPE_CHECKING:
    from bn_inception.evaluation.paired import Comparison


@dataclass
class DifferenceConfig:
    """The keys of `configs/difference.yaml`."""

    predictions: list[str] = field(default_factory=list)
    crops: str | None = None
    statistics: str | None = None
    seed: int = 0
    output: str | None = None

    def __post_init__(self) -> None:
        if len(self.predictions) != 2:
            raise UserError(
                f"difference: {len(self.predictions)} predictions given; give two .npz files or "
                "run folders"
            )


def run(call: Call[DifferenceConfig]) -> int:
    """Compare two predictions; return 0."""
    from bn_inception.cli.ensemble import member_names
    from bn_inception.evaluation.members import prediction_file
    from bn_inception.evaluation.paired import compare_predictions
    from bn_inception.files import write_json
    from bn_inception.record import read_predictions

    config = call.config
    output = output_file(config.output)
    files = [prediction_file(path, config.crops, config.statistics) for path in config.predictions]
    first, second = (read_predictions(path) for path in files)
    given = (config.predictions[0], config.predictions[1])
    comparison = compare_predictions(first, second, names=given, seed=config.seed)
    one, other = member_names(config.predictions)
    print(as_text(comparison, one, other))
    if output is not None:
        write_json(output, {"first": one, "second": other, **comparison.as_dict()})
        print(output)
    return 0


def as_text(comparison: "Comparison", first: str, second: str) -> str:
    """Both errors, their difference with its interval, and McNemar's p-value."""
    lines = [f"{comparison.count:,} images; difference = {second} minus {first}"]
    for name, measured in (("top-1", comparison.top1), ("top-5", comparison.top5)):
        low, high = measured.interval
        one, other = (error / measured.count for error in measured.errors)
        lines += [
            f"{name} error {one:.2%} and {other:.2%}: difference {measured.difference:+.2%} "
            f"(95 %: {low:+.2%} to {high:+.2%})",
            f"  only the first right: {measured.only_first:,}, only the second: "
            f"{measured.only_second:,}; McNemar's exact test: p = {measured.p_value:.3g}",
        ]
    return "\n".join(lines)


COMMAND = Command("difference", DifferenceConfig, run, plain="predictions")
