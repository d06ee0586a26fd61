"""Figure 1 again, from the numbers that `bn-inception mnist` wrote; it trains nothing.

    python experiments/figure1.py FIGURE1.json OUTPUT_FOLDER

The files are the same byte for byte as those of the command.
"""

import json
import sys
from pathlib import Path

from bn_inception.mnist import Curve, Evaluation, MnistSettings, figure1


def main(numbers: str, folder: str) -> None:
    rows = json.loads(Path(numbers).read_text("utf-8"))["curves"]
    curves = [
        Curve(
            row["network"],
            MnistSettings(**row["settings"]),
            tuple(Evaluation(**evaluation) for evaluation in row["evaluations"]),
        )
        for row in rows
    ]
    Path(folder).mkdir(parents=True, exist_ok=True)
    print(*figure1(curves, Path(folder)), sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
