"""Training in fp32 and in bf16 from the same start, on the same batches: how far the losses part.

    python experiments/precision_curves.py [key=value ...] [output=FILE.json]

Trains three runs with `bn-inception train`, in outputs/precision unless run.root= is given: fp32,
bf16, and fp32 from another seed, which shows what a difference means that is no fault of a number
format. Takes what train takes; without arguments recipe=bn_x5 scale=cpu and the synthetic images. A
run that is there already is continued or taken as it is, so that the script can be called again.

Prints, for five equal parts of the training, the mean training loss of each run and their
differences, and the validation accuracies.
"""

import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

RUNS = {"fp32": ("fp32", 0), "bf16": ("bf16", 0), "fp32, another seed": ("fp32", 1)}
PARTS = 5


def main() -> None:
    given = sys.argv[1:]
    output = next(
        (word.removeprefix("output=") for word in given if word.startswith("output=")), ""
    )
    given = [word for word in given if not word.startswith("output=")]
    root = next((w.removeprefix("run.root=") for w in given if w.startswith("run.root=")), "")
    if not root:
        root = "outputs/precision"
        given = ["scale=cpu", *given, f"run.root={root}"]
    curves: dict[str, list[dict[str, Any]]] = {}
    for label, (precision, seed) in RUNS.items():
        name = f"{precision}-seed{seed}"
        subprocess.run(
            [
                sys.executable, "-m", "bn_inception", "train", *given, f"run.name={name}",
                f"run.seed={seed}", f"machine.precision={precision}", "run.resume=auto",
            ],
            check=True,
        )  # fmt: skip
        lines = (Path(root) / name / "metrics.jsonl").read_text().splitlines()
        curves[label] = [json.loads(line) for line in lines]
    table = {label: _parts(records) for label, records in curves.items()}
    best = {label: _last_accuracy(records) for label, records in curves.items()}
    steps = max(record["step"] for record in curves["fp32"])
    print(f"mean training loss in {PARTS} equal parts of {steps} steps; last top-1 accuracy")
    for label, means in table.items():
        print(f"{label:20}" + "".join(f"{mean:9.4f}" for mean in means) + f"   {best[label]:.2%}")
    for label in list(RUNS)[1:]:
        apart = [mean - exact for mean, exact in zip(table[label], table["fp32"], strict=True)]
        print(f"{label + ' - fp32':27}" + "".join(f"{value:+9.4f}" for value in apart))
    if output:
        Path(output).write_text(
            json.dumps({"steps": steps, "mean_loss": table, "top1": best}, indent=2) + "\n"
        )
        print(output)


def _parts(records: list[dict[str, Any]]) -> list[float]:
    """Mean loss of the log lines in each of `PARTS` parts."""
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    if len(losses) < PARTS:
        raise SystemExit(f"{len(losses)} log lines are too few for {PARTS} parts; train longer")
    bounds = [len(losses) * part // PARTS for part in range(PARTS + 1)]
    return [statistics.fmean(losses[a:b]) for a, b in itertools.pairwise(bounds)]


def _last_accuracy(records: list[dict[str, Any]]) -> float:
    found = [record["top1"] for record in records if record["kind"] == "validation"]
    return float(found[-1]) if found else float("nan")


if __name__ == "__main__":
    main()
