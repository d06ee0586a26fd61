"""The stability edge: the lowest rates at which short trainings break down.

    python experiments/stability_edge.py OUTPUT.json scale=cpu data=tiny_imagenet data.root=FOLDER \
        [networks=inception,bn_baseline] [seeds=0,1,2] [steps=300] [key=value ...]
    python experiments/stability_edge.py OUTPUT.json            (the table of what is there)

The rates are the paper's initial one, 0.0015, times powers of two. A training ends in one of three
ways:

    nonfinite   a loss that is not a finite number
    stuck       mean training loss of the last 50 steps not below 0.98 ln(classes)
    learns      below that

The edges are found by bisection over the exponent, which takes it that a network that has broken
down at a rate breaks down at all higher ones. First the lowest rate that ends in non-finite
numbers; then, of the rates below it, one that learns; then the lowest above that one which does
not. Rates below the one that learns may be stuck too, being slow; if no rate learns, only the first
edge stands, and the losses say what happened. Every training is written down as it ends; started
again, the script takes those as they are. Another seed starts at the edges of the seed before it.
"""

import json
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from short_training import ShortTraining

from bn_inception.errors import UserError
from bn_inception.files import write_json
from bn_inception.training.loop import STARTED_BELOW

RATE = 0.0015
HIGHEST = 30
"""Exponent. Normalization bounds the gradients; what overflows in the end is weight decay, where
the rate times 4e-5 is above 3.8 (SGD with momentum 0.9), at an exponent of 26."""
JUDGED_STEPS = 50


@dataclass(frozen=True)
class Row:
    """One training; `loss` is the mean of its last 50 finite losses at most."""

    network: str
    seed: int
    rate: float
    exponent: int
    outcome: str
    loss: float | None
    steps: int


def outcome(losses: list[float], classes: int) -> tuple[str, float | None]:
    """How a training ended, and the mean of the losses that decide it."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    mean = statistics.fmean(finite[-JUDGED_STEPS:]) if finite else None
    if mean is None or len(finite) < len(losses):
        return "nonfinite", mean
    return ("learns" if mean < STARTED_BELOW * math.log(classes) else "stuck"), mean


def lowest(
    beyond: Callable[[int], bool], low: int, high: int, guess: int | None = None
) -> int | None:
    """The lowest exponent above `low` and up to `high` that is beyond the edge; None if none is.

    `low` is known not to be; whatever lies above the edge is beyond it. The search starts with
    `guess` and the exponent below it.
    """
    sure = False  # that `high` is beyond
    if guess is not None and low < guess <= high:
        if beyond(guess):
            high, sure = guess, True
            if guess - 1 > low:
                low, high = (low, guess - 1) if beyond(guess - 1) else (guess - 1, high)
        else:
            low = guess
    if low >= high or not (sure or beyond(high)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high


class Edges:
    """The search for one network and seed, over trainings that `train` makes or finds."""

    def __init__(self, train: Callable[[int], str]) -> None:
        self._train = train
        self.nonfinite: int | None = None
        self.learns: int | None = None
        self.stuck: int | None = None

    def find(self, before: "Edges | None") -> "Edges":
        """Search, from the edges of another seed if there is one."""
        self.nonfinite = lowest(
            lambda e: self._train(e) == "nonfinite", -1, HIGHEST, before and before.nonfinite
        )
        top = HIGHEST if self.nonfinite is None else self.nonfinite - 1
        likely = [before.learns] if before and before.learns is not None else []
        candidates = [*likely, *sorted(range(top + 1), key=lambda e: abs(e - 4))]
        self.learns = next((e for e in candidates if e <= top and self._train(e) == "learns"), None)
        if self.learns is not None:
            self.stuck = lowest(
                lambda e: self._train(e) != "learns", self.learns, top, before and before.stuck
            )
        return self


class Record:
    """The JSON file of rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, object] = {"kind": "stability_edge"}
        self.rows: list[Row] = []
        if path.exists():
            self.content = json.loads(path.read_text())
            self.rows = [Row(**row) for row in self.content["rows"]]  # type: ignore[attr-defined]

    def settle(self, **settings: object) -> None:
        """Note what the rows are made with; UserError if the file's were made otherwise."""
        for key, value in settings.items():
            if self.content.setdefault(key, value) != value:
                raise UserError(
                    f"{self.path}: its rows were made with {key}={self.content[key]}, not {value}; "
                    "give that, or another file"
                )

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.rows.sort(key=lambda row: (row.network, row.seed, row.rate))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.content | {"rows": [asdict(row) for row in self.rows]})
        self.path.with_suffix(".md").write_text(self.table() + "\n")

    def table(self) -> str:
        """Every rate tried, a line each: outcomes by network and seed, with the deciding loss."""
        columns = sorted({(row.network, row.seed) for row in self.rows})
        heads = [f"{network}, seed {seed}" for network, seed in columns]
        lines = ["| rate | " + " | ".join(heads) + " |", "|---:|" + "---|" * len(heads)]
        found = {(row.network, row.seed, row.exponent): row for row in self.rows}
        for exponent in sorted({row.exponent for row in self.rows}):
            cells = []
            for network, seed in columns:
                row = found.get((network, seed, exponent))
                loss = "" if row is None or row.loss is None else f" ({row.loss:.3g})"
                at = f" at step {row.steps}" if row and row.outcome == "nonfinite" else loss
                cells.append("" if row is None else row.outcome + at)
            lines.append(f"| {RATE * 2.0**exponent:.4g} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


class Trainer:
    """Makes the trainings of one network and seed, or finds them in the record."""

    def __init__(self, record: Record, network: str, seed: int, given: list[str]) -> None:
        self._record = record
        self._key = (network, seed)
        self._given = [*given, f"recipe={network}", f"run.seed={seed}"]
        self._training: ShortTraining | None = None  # images are read when one is made

    def __call__(self, exponent: int) -> str:
        """How the training at 0.0015 times 2 to the exponent ends."""
        for row in self._record.rows:
            if (row.network, row.seed, row.exponent) == (*self._key, exponent):
                return row.outcome
        if self._training is None:
            self._training = ShortTraining(self._given, int(str(self._record.content["steps"])))
        rate = RATE * 2.0**exponent
        updates = self._training.updates(f"optimizer.learning_rate={rate}")
        losses = [update.loss for update in updates]
        end, mean = outcome(losses, self._training.classes)
        row = Row(*self._key, rate, exponent, end, mean, len(losses))
        self._record.add(row)
        print(row, flush=True)
        return end


def search(record: Record, networks: list[str], seeds: list[int], given: list[str]) -> None:
    for network in networks:
        before: Edges | None = None
        for seed in seeds:
            before = Edges(Trainer(record, network, seed, given)).find(before)


def main() -> None:
    if len(sys.argv) < 2 or "=" in sys.argv[1]:
        raise SystemExit(__doc__)
    own = {"networks": "inception,bn_baseline", "seeds": "0,1,2", "steps": "300"}
    given = []
    for word in sys.argv[2:]:
        key, _, value = word.partition("=")
        if key in own:
            own[key] = value
        else:
            given.append(word)
    record = Record(Path(sys.argv[1]))
    if given:
        scale = next((w.removeprefix("scale=") for w in given if w.startswith("scale=")), "demo")
        record.settle(scale=scale, steps=int(own["steps"]))
        seeds = [int(seed) for seed in own["seeds"].split(",")]
        search(record, own["networks"].split(","), seeds, given)
    print(record.table())


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"stability_edge: {error}") from error
