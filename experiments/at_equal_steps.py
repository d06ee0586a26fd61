"""How far two sets of runs have come at the same steps, for docs/results.md and docs/imagenet.md.

    python experiments/at_equal_steps.py OUTPUT FOLDER OTHER_FOLDER

Both folders hold run folders, those of one recipe of one length. Writes OUTPUT.json and OUTPUT.md:
- the validation accuracy at the last step at which OTHER_FOLDER's first run was evaluated;
- the mean training loss around 1 % and 5 % of the planned steps, relative to that of guessing,
  ln(classes). Around a step means: the records within a fifth of it, or else the nearest one.
"""

import math
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from bn_inception.errors import UserError
from bn_inception.files import write_json, write_text
from bn_inception.paper.results import CONTROLS, FIGURE_3
from bn_inception.record.metrics import TrainRecord, read_metrics
from bn_inception.report.runs import Run, read_runs

SHARES = (0.01, 0.05)


@dataclass(frozen=True)
class Row:
    """One recipe. The outer lists have FOLDER's runs and then OTHER_FOLDER's, one a seed."""

    recipe: str
    step: float | None
    top1: list[list[float]]
    losses: list[list[float]]  # at 1 %, then at 5 %


def at_equal_steps(recipe: str, sets: list[list[Run]]) -> Row:
    """The accuracies are empty where OTHER_FOLDER has no such run."""
    step = sets[1][0].steps[-1] if sets[1] else None
    top1 = [[r.top1[r.steps.index(step)] for r in runs if step is not None] for runs in sets]
    return Row(recipe, step, top1, [[loss(r, s) for r in runs] for s in SHARES for runs in sets])


def loss(run: Run, share: float) -> float:
    """The training loss around this share of the run, relative to ln(classes)."""
    records = [r for r in read_metrics(run.path / "metrics.jsonl") if isinstance(r, TrainRecord)]
    step = share * (run.summary.planned_steps or run.summary.step)
    near = [r for r in records if abs(r.step - step) <= step / 5]
    near = near or [min(records, key=lambda r: abs(r.step - step))]
    mean = statistics.mean(math.nan if r.loss is None else r.loss for r in near)
    return mean / math.log(run.summary.classes or 1000)


def table(names: tuple[str, str], rows: list[Row]) -> str:
    """One line a recipe, as Markdown; everything in hundredths, seeds in ascending order."""
    lines = [
        f"The first of two columns: {names[0]}, the second: {names[1]}; each seed.",
        "",
        "| recipe | step | top-1, % | top-1, % "
        + "".join(f"| loss at {s:.0%}, % of guessing's | the same " for s in SHARES)
        + "|",
        "|---|" + "---:|" * (3 + 2 * len(SHARES)),
    ]
    for row in rows:
        cells = [
            ", ".join(f"{100 * value:.1f}" for value in sorted(values)) or "-"
            for values in (*row.top1, *row.losses)
        ]
        step = "-" if row.step is None else f"{row.step:,.0f}"
        lines.append("| " + " | ".join([row.recipe, step, *cells]) + " |")
    return "\n".join(lines) + "\n"


def main(output: str, folder: str, other: str) -> None:
    sets = [read_runs(sorted(Path(name).iterdir())) for name in (folder, other)]
    rows = []
    for recipe in (*FIGURE_3, *CONTROLS):
        own = [[run for run in runs if run.summary.recipe == recipe] for runs in sets]
        if any(own):
            rows.append(at_equal_steps(recipe, own))
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [asdict(row) for row in rows]
    write_json(path.with_suffix(".json"), {"kind": "at_equal_steps", "rows": found})
    text = table((folder, other), rows)
    write_text(path.with_suffix(".md"), text)
    print(text, end="")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except UserError as error:
        raise SystemExit(f"at_equal_steps: {error}") from error
