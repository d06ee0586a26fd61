"""What each study cost: its runs, their steps and hours, from their records.

    python experiments/cost.py OUTPUT NAME=FOLDER ...

FOLDER holds run folders. The hours are those in which a run trained and evaluated, as they passed,
without interruptions; a run with one thread has one core. Writes OUTPUT.json and OUTPUT.md.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from bn_inception.errors import UserError
from bn_inception.files import write_json, write_text
from bn_inception.report.runs import read_runs


@dataclass(frozen=True)
class Cost:
    """A study. `machines` are the processors or GPUs that its runs name, sorted."""

    study: str
    runs: int
    steps: int
    hours: float
    machines: list[str]


def cost(study: str, folder: Path) -> Cost:
    """The sums over the run folders in `folder`."""
    runs = read_runs(sorted(folder.iterdir()))
    machines = set()
    for run in runs:
        gpus = run.environment.get("gpus") or []
        machines |= {str(gpu) for gpu in gpus} or {str(run.environment["cpu"]["model"])}
    hours = sum(run.summary.wall_seconds for run in runs) / 3600
    steps = sum(run.summary.step for run in runs)
    return Cost(study, len(runs), steps, hours, sorted(machines))


def main(output: str, *studies: str) -> None:
    costs = [cost(name, Path(folder)) for name, _, folder in (s.partition("=") for s in studies)]
    lines = ["| study | runs | steps | hours | on |", "|---|---:|---:|---:|---|"]
    lines += [
        f"| {c.study} | {c.runs} | {c.steps:,} | {c.hours:.1f} | {', '.join(c.machines)} |"
        for c in costs
    ]
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.with_suffix(".json"), {"kind": "cost", "studies": [asdict(c) for c in costs]})
    write_text(path.with_suffix(".md"), "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except UserError as error:
        raise SystemExit(f"cost: {error}") from error
