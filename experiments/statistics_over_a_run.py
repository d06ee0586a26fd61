"""One run judged twice: by BN's running statistics, and by the population's (BN Algorithm 2).

    python experiments/statistics_over_a_run.py data.root=TINY_IMAGENET [key=value ...]

trains BN-x5 (`recipe=bn_x5 scale=cpu data=tiny_imagenet`, and what is given) for 600 steps. Every
100 steps the same weights are evaluated with both statistics on the same held-out images. Leaves
`statistics_over_a_run/result.json`, `.png` and `.svg` beside this file.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

from matplotlib.figure import Figure

from bn_inception.cli.main import dispatch

STEPS, EVERY = 600, 100
FOLDER = Path(__file__).with_suffix("")
RUN = "run"


def main() -> None:
    """Train, evaluate with both statistics every 100 steps, write and draw what was found."""
    given = sys.argv[1:]
    points = []
    with tempfile.TemporaryDirectory() as root:
        for step in range(EVERY, STEPS + 1, EVERY):
            train = ["recipe=bn_x5", "scale=cpu", "data=tiny_imagenet", *given]
            lengths = [f"train.steps={step}", f"train.evaluate_every={EVERY}"]
            place = [f"run.root={root}", f"run.name={RUN}", "run.resume=auto"]
            _succeed(["train", *train, *lengths, *place])
            for statistics in ("running", "population"):
                judged = ["which=last", f"statistics={statistics}"]
                _succeed(["evaluate", f"run={root}/{RUN}", *judged])
            points.append({"step": step, **_both(Path(root) / RUN)})
    FOLDER.mkdir(exist_ok=True)
    named = [key for key in given if not key.startswith("data.root=")]
    result = {"recipe": "bn_x5", "scale": "cpu", "given": named, "points": points}
    (FOLDER / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(points)


def _succeed(arguments: list[str]) -> None:
    if dispatch(arguments) != 0:
        sys.exit(f"bn-inception {' '.join(arguments)}: stopped")


def _both(run: Path) -> dict[str, Any]:
    """Accuracies (fractions) by statistics, as `evaluate` wrote them and as the run recorded."""
    found: dict[str, Any] = {}
    for statistics in ("running", "population"):
        path = run / "evaluation" / f"single-{statistics}-last.json"
        evaluation = json.loads(path.read_text())
        found[statistics] = round(1 - evaluation["top1_error"], 6)
        found["images"] = evaluation["count"]
    found["population_batches"] = evaluation["population_batches"]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found["recorded"] = [r["top1"] for r in records if r["kind"] == "validation"][-1]
    return found


def draw(points: list[dict[str, Any]]) -> None:
    """Both accuracies over the steps, as PNG and SVG."""
    matplotlib.rcParams["svg.hashsalt"] = "bn-inception"
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    steps = [point["step"] for point in points]
    named = {"population": "population (Algorithm 2)", "running": "running, momentum 0.02"}
    for statistics, style in (("population", "o-"), ("running", "s--")):
        accuracies = [100 * point[statistics] for point in points]
        axes.plot(steps, accuracies, style, label=named[statistics])
    axes.set(xlabel="step", ylabel="held-out top-1, %", xlim=(0, None), ylim=(0, None))
    axes.legend(loc="lower right", title="statistics")
    axes.grid(alpha=0.3)
    metadata: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "png": {"Software": None}}
    for kind, its_metadata in metadata.items():
        figure.savefig(FOLDER / f"statistics_over_a_run.{kind}", dpi=150, metadata=its_metadata)


if __name__ == "__main__":
    main()
