"""What `make demo` shows, for one seed as a sentence and for several as a table.

    python experiments/demo.py sentence RUN_FOLDER RUN_FOLDER
    python experiments/demo.py seeds [seeds=16,17,18,19,20] [parallel=1] \
        [run.root=outputs/demo_seeds] [output=experiments/demo/seeds.json] [key=value ...]

`sentence` takes a run of recipe=inception and one of recipe=bn_x5. `seeds` trains both at
scale=demo for each seed, `parallel` runs at a time, and writes the table as JSON and
Markdown; runs that are there are taken as they are. Target and steps to it: docs/statements.md, for
each seed by itself.
"""

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from rate_factor import split_arguments

from bn_inception.cli.run_arguments import read_run_arguments
from bn_inception.errors import UserError
from bn_inception.report.curves import curves_of, percent, target_by

RECIPES = ("inception", "bn_x5")
SHARE = 0.25
"""BN-x5 is to reach the target in at most this share of the plain network's steps."""
CHOSEN_WITH = range(16)
"""Images and rate factor were chosen by looking at these seeds: they prove nothing."""


@dataclass(frozen=True)
class Seen:
    """Both runs of one seed.

    Attributes:
        seed: of both.
        plateaus: top-1, of the plain network and of BN-x5.
        target: the plain network's plateau less a point.
        steps: to the target, of the plain network and of BN-x5; where BN-x5 never got there, its
            length.
        reached: whether BN-x5 got there.
        fault: why this shows nothing; None where it does.
    """

    seed: int
    plateaus: tuple[float, float]
    target: float
    steps: tuple[float, float]
    reached: bool
    fault: str | None

    @property
    def ratio(self) -> float:
        return self.steps[1] / self.steps[0]

    @property
    def within(self) -> bool:
        return self.fault is None and self.reached and self.ratio <= SHARE


def look(folders: Sequence[Path]) -> Seen:
    """Compare the two runs of one seed.

    Raises:
        UserError: not one run of each recipe, or one without an evaluation.
    """
    runs = {run.summary.recipe: run for run in read_run_arguments([*map(str, folders)])[0]}
    if set(runs) != set(RECIPES) or len(folders) != len(RECIPES):
        raise UserError(f"one run of {' and one of '.join(RECIPES)} are compared; give these two")
    plain, other = (runs[recipe] for recipe in RECIPES)
    target, fast = target_by([plain]), curves_of([other])
    if target.plain is None or target.level is None or fast is None:
        raise UserError(f"{plain.path}, {other.path}: a run has no evaluation; let both finish")
    partial = [run.name for run in (plain, other) if run.cut_short or not run.ended]
    (slow_at,), _ = target.steps(target.plain)
    (fast_at,), (reached,) = target.steps(fast)
    return Seen(
        seed=plain.summary.seed,
        plateaus=(float(target.plain.plateaus[0]), float(fast.plateaus[0])),
        target=target.level,
        steps=(float(slow_at), float(fast_at)),
        reached=bool(reached),
        fault=f"{partial[0]} is not a whole run" if partial else target.fault,
    )


def sentence(seen: Seen) -> str:
    """What was seen, in one."""
    (plain, other), (slow, fast) = seen.plateaus, seen.steps
    if seen.fault:
        return f"These runs show nothing: {seen.fault}."
    if not seen.reached:
        return (
            f"BN-x5 did not reach plain Inception's plateau of {percent(plain)} less a point: it "
            f"ended at {percent(other)}."
        )
    return (
        f"BN-x5 reached plain Inception's plateau ({percent(plain)}, less a point) at step "
        f"{fast:,.0f}, plain Inception at step {slow:,.0f}: {percent(seen.ratio)} of the steps."
    )


def as_table(found: Sequence[Seen]) -> str:
    """A row a seed, as Markdown, and the sentence that they come to."""
    lines = [
        "| seed | Inception's plateau | target | Inception at step | BN-x5 at step | ratio "
        "| BN-x5's plateau | within a quarter |",
        "|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for seen in found:
        (plain, other), (slow, fast) = seen.plateaus, seen.steps
        lines.append(
            f"| {seen.seed} | {percent(plain)} | {percent(seen.target)} | {slow:,.0f} "
            f"| {f'{fast:,.0f}' if seen.reached else 'never'} "
            f"| {percent(seen.ratio) if seen.reached else '-'} | {percent(other)} "
            f"| {(seen.fault or ('yes' if seen.within else 'no')).partition(':')[0]} |"
        )
    counted = [seen for seen in found if seen.seed not in CHOSEN_WITH]
    hits = sum(seen.within for seen in counted)
    return "\n".join(
        [
            *lines,
            "",
            f"Of the {len(counted)} seeds that chose nothing, BN-x5 is within a quarter of plain "
            f"Inception's steps in {hits}.",
        ]
    )


def write(found: Sequence[Seen], output: Path) -> None:
    """Write the JSON file and the Markdown table beside it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(seen), "ratio": seen.ratio, "within": seen.within} for seen in found]
    output.write_text(json.dumps({"kind": "demo", "seeds": rows}, indent=2) + "\n")
    output.with_suffix(".md").write_text(as_table(found) + "\n")


def folder(root: Path, recipe: str, seed: int) -> Path:
    return root / f"{recipe}-demo-synthetic-seed{seed}"


def train(root: Path, recipe: str, seed: int, given: Sequence[str]) -> None:
    command = [
        sys.executable, "-m", "bn_inception", "train", f"recipe={recipe}", "scale=demo",
        "data=synthetic", "data.workers=0", "machine=cpu", "machine.threads=1",
        f"run.root={root}", f"run.seed={seed}", "run.resume=auto", *given,
    ]  # fmt: skip
    subprocess.run(command, check=True)


def main() -> None:
    words = sys.argv[1:]
    if words[:1] == ["sentence"]:
        print(sentence(look([Path(word) for word in words[1:]])))
    elif words[:1] == ["seeds"]:
        own, given = split_arguments(
            words[1:],
            seeds="16,17,18,19,20",
            parallel="1",
            output="experiments/demo/seeds.json",
            **{"run.root": "outputs/demo_seeds"},
        )
        root, seeds = Path(own["run.root"]), [int(seed) for seed in own["seeds"].split(",")]
        with ThreadPoolExecutor(int(own["parallel"])) as pool:
            pairs = itertools.product(seeds, RECIPES)
            list(pool.map(lambda pair: train(root, pair[1], pair[0], given), pairs))
        found = [look([folder(root, recipe, seed) for recipe in RECIPES]) for seed in seeds]
        print(as_table(found))
        write(found, Path(own["output"]))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"demo: {error}") from error
