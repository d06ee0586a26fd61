"""`bn-inception ensemble`: the mean of saved predictions, and of every subset of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bn_inception.cli.command import Call, Command
from bn_inception.cli.output import output_file
from bn_inception.errors import UserError

if TYPE_CHECKING:
    from bn_inception.evaluation.ensemble import Ensemble


@dataclass
class EnsembleConfig:
    """The keys of `configs/ensemble.yaml`."""

    members: list[str] = field(default_factory=list)
    crops: str | None = None
    statistics: str | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        if self.output is not None and not self.output.endswith(".npz"):
            raise UserError(f"output: {self.output}; give the name of an .npz file")


def run(call: Call[EnsembleConfig]) -> int:
    """Average predictions; return 0."""
    from bn_inception.evaluation.ensemble import ensemble
    from bn_inception.evaluation.members import prediction_file
    from bn_inception.files import write_json
    from bn_inception.record import write_predictions

    config = call.config
    output = output_file(config.output)
    files = [prediction_file(path, config.crops, config.statistics) for path in config.members]
    result = ensemble(files, member_names(config.members))
    print(as_text(result))
    if output is not None:
        write_predictions(output, result.predictions)
        write_json(output.with_suffix(".json"), result.as_dict())
        print(output)
        print(output.with_suffix(".json"))
    return 0


def member_names(paths: Sequence[str]) -> list[str]:
    """What to call members: their own names, with the folder before it where two are the same."""
    own = [Path(path).resolve() for path in paths]
    names = [path.name.removesuffix(".npz") for path in own]
    return [
        f"{path.parent.name}/{name}" if names.count(name) > 1 else name
        for path, name in zip(own, names, strict=True)
    ]


def as_text(result: "Ensemble") -> str:
    """The whole ensemble's errors with 95 % intervals, and a table by number of models."""
    errors, models = result.errors, len(result.names)
    crops = result.predictions.meta.get("crops")
    lines = [f"{models} models, {errors.count:,} images, crops={crops}"]
    lines += errors.lines()
    lines.append("")
    lines.append("models  subsets   top-1 best    mean   worst   top-5 of them  best subset")
    for size in result.as_dict()["subsets"]:
        best, mean, worst = size["best"], size["mean"], size["worst"]
        lines.append(
            f"{size['models']:6}  {size['subsets']:7}      {best['top1_error']:7.2%} "
            f"{mean['top1_error']:7.2%} {worst['top1_error']:7.2%}  "
            f"{best['top5_error']:7.2%} {mean['top5_error']:7.2%} {worst['top5_error']:7.2%}  "
            f"{' '.join(best['members'])}"
        )
    return "\n".join(lines)


COMMAND = Command("ensemble", EnsembleConfig, run, plain="members")
