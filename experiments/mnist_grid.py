"""Rates and initial spreads for BN Figure 1, for both networks by one rule.

    python experiments/mnist_grid.py ROOT OUTPUT.json

ROOT has MNIST's files (as root= of `bn-inception mnist`). Section 4.1 gives neither rate nor
spread. Both networks train 50,000 steps at every pair of RATES and DEVIATIONS with seed 0; each
network takes the pair with the highest plateau, the mean accuracy of the last tenth of its
evaluations on 10,000 training images that it was not trained on (of equal ones the smaller rate).
The test images choose nothing. OUTPUT.json and OUTPUT.md get all points; started again, the script
takes what is there.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from bn_inception.files import write_json, write_text
from bn_inception.mnist import NETWORKS, Curve, MnistSettings, read_digits, train
from bn_inception.record.environment import describe

RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
DEVIATIONS = (0.01, 0.1)
EVALUATE_EVERY = 500


def main(root: str, output: str) -> None:
    path = Path(output)
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    torch.set_num_threads(1)
    digits = read_digits(Path(root))
    for deviation in DEVIATIONS:
        for rate in RATES:
            for network in NETWORKS:
                at = {"network": network, "learning_rate": rate, "deviation": deviation}
                if any(at.items() <= row.items() for row in rows):
                    continue
                settings = MnistSettings(rate, deviation, evaluate_every=EVALUATE_EVERY)
                curve = train(network, settings, digits)
                last = asdict(curve.evaluations[-1])
                rows.append({**at, "plateau": plateau(curve), "last": last})
                write_json(path, {"kind": "mnist_grid", "rows": rows, **describe("mnist")})
    write_text(path.with_suffix(".md"), table(rows))
    print(table(rows))


def plateau(curve: Curve) -> float:
    last = curve.evaluations[-max(1, len(curve.evaluations) // 10) :]
    return sum(evaluation.validation_accuracy for evaluation in last) / len(last)


def best(rows: list[dict[str, object]], network: str) -> dict[str, object]:
    of = [row for row in rows if row["network"] == network]
    return min(of, key=lambda row: (-float(str(row["plateau"])), float(str(row["learning_rate"]))))


def table(rows: list[dict[str, object]]) -> str:
    lines = []
    for network in NETWORKS:
        lines += [
            f"{network}: plateau of validation accuracy",
            "",
            "| initial deviation | " + " | ".join(f"rate {rate:g}" for rate in RATES) + " |",
            "|---:|" + "---:|" * len(RATES),
        ]
        chosen = best(rows, network)
        for deviation in DEVIATIONS:
            cells = []
            for rate in RATES:
                at = {"network": network, "learning_rate": rate, "deviation": deviation}
                row = next((row for row in rows if at.items() <= row.items()), None)
                cell = "" if row is None else f"{100 * float(str(row['plateau'])):.2f} %"
                cells.append(f"**{cell}**" if row is not None and row is chosen else cell)
            lines.append(f"| {deviation:g} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
