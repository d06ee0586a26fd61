"""A scale's rate factor, found by one rule that looks at the plain network alone.

    python experiments/rate_factor.py run scale=cpu data=tiny_imagenet data.root=FOLDER \
        [parallel=N] [run.root=outputs/rate_factor] [key=value ...]
    python experiments/rate_factor.py table RUN_FOLDER ... [output=FILE.json]

`run` trains recipe=inception at the scale's own length for scale.rate_factor 4, 8 and 16, and goes
on by factors of two until the best has a worse one on each side: that one is the scale's. It trains
`parallel` at a time (1). Started again it goes on where it was. `table` judges runs, as `run` does
at its end, whatever folder they lie in, and writes FILE.json and FILE.md.

A run's accuracy is its plateau, and its gain over the last third is that by which the judges say
whether it still climbs (docs/statements.md). A run whose numbers became infinite stands behind all
others.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from bn_inception.errors import UserError
from bn_inception.record.metrics import ValidationRecord, read_metrics
from bn_inception.record.summary import RunStatus, read_summary
from bn_inception.report.curves import PLATEAU_LEAST, gain_of_last_third, plateau

START = (4.0, 8.0, 16.0)
LIMIT = 2.0**10
"""No factor beyond it, or below its inverse, is tried: the rule would not end if nothing learns."""


@dataclass(frozen=True)
class Point:
    """One run: accuracies are fractions of the held-out images."""

    scale: str
    seed: int
    factor: float
    learning_rate: float
    status: str
    steps: int
    planned_steps: int
    evaluations: int
    plateau: float | None
    gain_last_third: float | None
    chance: float

    @property
    def finished(self) -> bool:
        return self.status in (RunStatus.finished.value, RunStatus.diverged.value)

    @property
    def order(self) -> tuple[float, float]:
        """Best first; of equal ones the smaller rate."""
        plateau = -1.0 if self.plateau is None else self.plateau
        return -plateau, self.factor


def read_point(folder: Path) -> Point:
    """Judge one run of the plain network.

    Raises:
        UserError: no run folder of recipe=inception.
    """
    try:
        config = OmegaConf.load(folder / "config.yaml")
    except OSError as error:
        raise UserError(f"{folder}: no run folder ({error.strerror}: config.yaml)") from error
    if config.recipe.name != "inception":
        raise UserError(f"{folder}: is a run of {config.recipe.name}; the rule takes inception's")
    summary = read_summary(folder / "summary.json")
    records = read_metrics(folder / "metrics.jsonl")
    curve = [(r.step, r.top1) for r in records if isinstance(r, ValidationRecord)]
    plateau, gain = None, None
    if summary.status is not RunStatus.diverged:
        plateau, gain = judge(curve, summary.planned_steps)
    return Point(
        scale=config.scale.name,
        seed=config.run.seed,
        factor=float(config.scale.rate_factor),
        learning_rate=float(config.optimizer.learning_rate),
        status=summary.status.value,
        steps=summary.step,
        planned_steps=summary.planned_steps,
        evaluations=len(curve),
        plateau=plateau,
        gain_last_third=gain,
        chance=1.0 / summary.classes,
    )


def judge(
    curve: Sequence[tuple[int, float]], planned_steps: int
) -> tuple[float | None, float | None]:
    """Plateau and gain over the last third of (step, top-1); None where there is too little."""
    top1 = np.array([value for _, value in curve])
    if len(top1) < PLATEAU_LEAST:
        return None, None
    whole = curve[-1][0] >= planned_steps
    return float(plateau(top1)), float(gain_of_last_third(top1)) if whole else None


def still_to_run(points: Iterable[Point]) -> list[float]:
    """The factors that the rule asks for next; none when it has found the scale's."""
    done = {point.factor: point for point in points if point.finished}
    missing = [factor for factor in START if factor not in done]
    if missing:
        return missing
    best = min(done.values(), key=lambda point: point.order).factor
    wanted = [best / 2, best * 2]
    return [f for f in wanted if f not in done and 1 / LIMIT <= f <= LIMIT]


def as_table(points: Sequence[Point]) -> str:
    """Every point, best first, as Markdown, and the sentence that the rule comes to."""
    lines = [
        "| scale.rate_factor | initial rate | plateau | gain, last third | steps | status |",
        "|---:|---:|---:|---:|---:|---|",
    ]
    for point in sorted(points, key=lambda point: point.order):
        plateau = "none" if point.plateau is None else f"{point.plateau:.2%}"
        gain = "none" if point.gain_last_third is None else f"{100 * point.gain_last_third:+.2f}"
        lines.append(
            f"| {point.factor:g} | {point.learning_rate:g} | {plateau} | {gain} "
            f"| {point.steps} of {point.planned_steps} | {point.status} |"
        )
    return "\n".join([*lines, "", verdict(points)])


def verdict(points: Sequence[Point]) -> str:
    """Which factor the rule gives, or what it still asks for."""
    wanted = still_to_run(points)
    if wanted:
        return f"Undecided: still to run are the factors {', '.join(f'{f:g}' for f in wanted)}."
    best = min((p for p in points if p.finished), key=lambda point: point.order)
    neighbours = {p.factor for p in points if p.finished} & {best.factor / 2, best.factor * 2}
    if len(neighbours) < 2 or best.plateau is None or best.plateau < 2 * best.chance:
        return "No factor: nothing learns, or the best lies at the end of the allowed grid."
    return f"The factor is {best.factor:g}: its neighbours on both sides are worse."


def write(points: Sequence[Point], output: Path) -> None:
    """Write the JSON file and the Markdown table beside it."""
    found = {
        "kind": "rate_factor",
        "verdict": verdict(points),
        "points": [asdict(point) for point in sorted(points, key=lambda point: point.order)],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=2) + "\n")
    output.with_suffix(".md").write_text(as_table(points) + "\n")


def run_name(scale: str, factor: float) -> str:
    return f"inception-{scale}-rate{factor:g}-seed0"


def train(root: Path, scale: str, factor: float, given: Sequence[str]) -> None:
    name = run_name(scale, factor)
    command = [
        sys.executable, "-m", "bn_inception", "train", "recipe=inception", *given,
        f"scale.rate_factor={factor:g}", f"run.root={root}", f"run.name={name}",
        "run.seed=0", "run.resume=auto",
    ]  # fmt: skip
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{name}.log").open("ab") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)


def sweep(root: Path, scale: str, parallel: int, train_one: Callable[[float], None]) -> list[Point]:
    """Train until the rule has its answer; runs that are finished already are taken as they are."""
    while True:
        folders = [path.parent for path in root.glob(f"inception-{scale}-rate*-seed0/summary.json")]
        points = [read_point(folder) for folder in folders]
        wanted = still_to_run(points)
        if not wanted:
            return points
        print("to run:", ", ".join(f"{factor:g}" for factor in wanted), flush=True)
        with ThreadPoolExecutor(parallel) as pool:
            list(pool.map(train_one, wanted))


def split_arguments(words: Sequence[str], **own: str) -> tuple[dict[str, str], list[str]]:
    """The keys of `own`, by default as there, taken out of key=value words; and all other words."""
    values, rest = dict(own), []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in own:
            values[key] = value
        else:
            rest.append(word)
    return values, rest


def main() -> None:
    words = sys.argv[1:]
    if words[:1] == ["table"] and len(words) > 1:
        own, folders = split_arguments(words[1:], output="")
        points = [read_point(Path(folder)) for folder in folders]
        if len({point.scale for point in points}) > 1:
            raise UserError("these are runs of several scales; give those of one")
    elif words[:1] == ["run"] and any(word.startswith("scale=") for word in words):
        default_root = "outputs/rate_factor"
        own, given = split_arguments(
            words[1:], parallel="1", output="", **{"run.root": default_root}
        )
        root = Path(own["run.root"])
        scale = next(word for word in given if word.startswith("scale=")).removeprefix("scale=")
        points = sweep(
            root, scale, int(own["parallel"]), lambda factor: train(root, scale, factor, given)
        )
    else:
        raise SystemExit(__doc__)
    print(as_table(points))
    if own["output"]:
        write(points, Path(own["output"]))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"rate_factor: {error}") from error
