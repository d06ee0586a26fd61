"""`bn-inception ensemble` and `difference`: saved predictions, put together and compared."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bn_inception.cli.command import command, output_file
from bn_inception.errors import UserError, require_at_least
from bn_inception.evaluation.ensemble import Ensemble
from bn_inception.evaluation.ensemble import ensemble as mean_of
from bn_inception.evaluation.saved import PairedDifference, paired_differences, prediction_file
from bn_inception.files import write_json
from bn_inception.record.predictions import read_predictions, write_predictions
from bn_inception.table import Table


@command("ensemble", plain="members")
def ensemble(
    members: list[str], crops: str | None, statistics: str | None, output: str | None
) -> None:
    """Print errors of the mean of predictions and of every subset of them; write the mean."""
    file = output_file(output, ".npz")
    files = [prediction_file(path, crops, statistics) for path in members]
    result = mean_of(files, _names(members))
    print(_ensemble_text(result))
    if file is not None:
        write_predictions(file, result.predictions)
        write_json(file.with_suffix(".json"), result.as_dict())
        print(file, file.with_suffix(".json"), sep="\n")


def _names(paths: Sequence[str]) -> list[str]:
    """What to call members: their own names, with the folder before it where two are the same."""
    own = [Path(path).resolve() for path in paths]
    names = [path.name.removesuffix(".npz") for path in own]
    return [
        f"{path.parents[path.parent.name == 'evaluation'].name}/{name}"
        if names.count(name) > 1
        else name
        for path, name in zip(own, names, strict=True)
    ]


def _ensemble_text(result: Ensemble) -> str:
    """The whole ensemble's errors with 95 % intervals, and a table by number of models."""
    crops = result.predictions.meta.get("crops")
    kinds = ("best", "mean", "worst")
    errors = (f"top-{k} of the {kind}" for k in (1, 5) for kind in kinds)
    header = ("models", "subsets", *errors, "best subset")
    rows = [
        (
            str(size["models"]),
            str(size["subsets"]),
            *(f"{size[kind][f'top{k}_error']:.2%}" for k in (1, 5) for kind in kinds),
            " ".join(size["best"]["members"]),
        )
        for size in result.as_dict()["subsets"]
    ]
    said = f"{len(result.names)} models, {result.errors.count:,} images, crops={crops}"
    return "\n".join([said, *result.errors.lines(), "", Table(header, rows, range(8)).as_text()])


@command("difference", plain="predictions")
def difference(
    predictions: list[str], crops: str | None, statistics: str | None, seed: int, output: str | None
) -> None:
    """Compare two predictions image by image."""
    if len(predictions) != 2:
        raise UserError(
            f"difference: {len(predictions)} predictions given; give two .npz files or run folders"
        )
    require_at_least("seed", seed, 0)
    file = output_file(output)
    names = predictions[0], predictions[1]
    one, other = (read_predictions(prediction_file(name, crops, statistics)) for name in names)
    top1, top5 = paired_differences(one, other, names=names, seed=seed)
    first, second = _names(names)
    print(f"{top1.count:,} images; difference = {second} minus {first}")
    print(*_difference_lines("top-1", top1), *_difference_lines("top-5", top5), sep="\n")
    if file is not None:
        both = {"top1": asdict(top1), "top5": asdict(top5)}
        write_json(file, {"first": first, "second": second, "count": top1.count, **both})
        print(file)


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
