"""How often the judges of `bn-inception claims` are wrong, on studies whose truth is known.

    python experiments/judges_simulation.py [STUDIES]      # of each cell, 300 unless given

Writes judges_simulation.md beside this file. Curves rise from chance to a plateau as a stretched
exponential, as at half the length of scale=cpu with 100 classes, evaluated every 200 steps. Seeds
scatter by 0.5 points at 15 % and by 0.1 in the logarithm of time; each evaluation has binomial
scatter, half of whose variance all evaluations of a run share, for they see the same images.
"""

import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from bn_inception.record.summary import RunStatus, Summary
from bn_inception.report.measures import together
from bn_inception.report.runs import Evaluation, Run
from bn_inception.report.settings import Setting
from bn_inception.report.statements import STATEMENTS

CLASSES = 100
CHANCE = 1 / CLASSES
SHAPE = 0.857
LENGTHS = {"inception": 15_500, "bn_baseline": 8_000}
HEIGHT, TIME = 0.145, 5_575.0
"""Of the plain network: the accuracy that it tends to, and its time constant in steps."""
SEED_ACCURACY, SEED_TIME = 0.5 / 15, 0.1

TRUTHS = {
    1: {"true": 0.43, "clearly true": 0.25, "false": 0.7, "at the limit": 0.5},
    2: {"true": 0.068, "clearly true": 0.04, "false": 0.12, "at the limit": 0.0875},
    3: {
        "true": (2.7 / 2.1, 0.018),
        "clearly true": (1.6, 0.03),
        "false": (0.7, 0.018),
        "at the limit": (1.0, 0.0),
    },
    4: {"true": 0.026, "clearly true": 0.045, "false": 0.0, "at the limit": 0.013},
    6: {"true": 0.01, "false": 0.04, "at the limit": 0.02},
    8: {"true": -0.02, "clearly true": -0.05, "false": 0.05, "at the limit": 0.01},
    9: {"true": 0.03, "clearly true": 0.06, "false": -0.06, "at the limit": 0.0},
}
"""By statement: ratio of steps (1, 2); of BN-x30's to BN-x5's at the start, and its gain in
plateau (3); gain in plateau (4); plateau of the plain sigmoid network (6); how much wider the gap
is without dropout (8); gain by 144 crops, and again by six networks (9)."""
SEEDS, IMAGES = (1, 3, 5), (1000, 5000)


def rise(steps, height, constant):
    """The accuracy that is expected after `steps`."""
    return CHANCE + (height - CHANCE) * (1 - np.exp(-((steps / constant) ** SHAPE)))


def constant_for(height, accuracy, steps):
    """The time constant with which a curve has `accuracy` after `steps`."""
    left = 1 - (accuracy - CHANCE) / (height - CHANCE)
    return steps / (-np.log(left)) ** (1 / SHAPE)


def grid(recipe):
    """The steps of the evaluations."""
    length = LENGTHS.get(recipe, 3_000)
    return np.unique(np.append(np.arange(200, length + 1, 200), length)).astype(float)


def plateau_of(steps, height, constant):
    """The expected mean of the last tenth of evaluations."""
    return rise(steps, height, constant)[-max(3, -(-len(steps) // 10)) :].mean()


PLAIN = plateau_of(grid("inception"), HEIGHT, TIME)
TARGET = PLAIN - 0.01
PLAIN_STEPS = TIME * (-np.log(1 - (TARGET - CHANCE) / (HEIGHT - CHANCE))) ** (1 / SHAPE)


@cache
def height_for(recipe, plateau, accuracy, steps):
    """The height at which a curve through (steps, accuracy) has a plateau."""
    low, high = accuracy + 1e-6, 0.9
    for _ in range(60):
        middle = (low + high) / 2
        constant = constant_for(middle, accuracy, steps)
        above = plateau_of(grid(recipe), middle, constant) > plateau
        low, high = (low, middle) if above else (middle, high)
    return low


def runs_of(draws, recipe, height, constant, seeds, images, *, gap=None, overrides=()):
    """Finished runs of a recipe, of seeds 0 to `seeds` - 1."""
    steps = grid(recipe)
    found = []
    for seed in range(seeds):
        top = height * (1 + SEED_ACCURACY * draws.standard_normal())
        expected = rise(steps, top, constant * np.exp(SEED_TIME * draws.standard_normal()))
        noise = np.sqrt(0.5) * (draws.standard_normal() + draws.standard_normal(len(steps)))
        top1 = np.clip(expected + np.sqrt(expected * (1 - expected) / images) * noise, 0, 1)
        training = ()
        if gap is not None:
            seen = np.clip(expected + gap + 0.005 * draws.standard_normal(), 0, 1)
            seen = seen + np.sqrt(seen * (1 - seen) / 6400) * draws.standard_normal(len(steps))
            training = tuple(zip(steps.tolist(), seen.tolist(), strict=True))
        summary = Summary(
            recipe, "cpu", seed, classes=CLASSES, status=RunStatus.finished, step=int(steps[-1])
        )
        run = Run(
            f"{recipe}-{seed}",
            Path(f"{recipe}-{seed}"),
            summary,
            tuple(steps.tolist()),
            tuple(top1.tolist()),
            validation_count=images,
            training=training,
            overrides=overrides,
        )
        found.append(run)
    return found


def evaluation(draws, crops, models, error, shared, images):
    """A saved evaluation; `shared`, in standard deviations, is of all networks on the images."""
    noise = np.sqrt(0.5) * (shared + draws.standard_normal())
    seen = error + np.sqrt(error * (1 - error) / images) * noise
    return Evaluation(
        Path("no.json"), crops, "population", models, images, seen, seen, (0, 1), (0, 1)
    )


def ensembles(draws, gain, seeds, images):
    """BN-x30 with its evaluations, and six networks'; top-5 errors around 40 %."""
    shared = draws.standard_normal()
    runs = []
    for run in runs_of(draws, "bn_x30", 0.17, 500, seeds, images):
        error = 0.4 + 0.04 * 0.24 * draws.standard_normal()
        own = tuple(
            evaluation(draws, crops, 1, at, shared, images)
            for crops, at in (("single", error + gain), ("144", error))
        )
        runs.append(Run(**{**vars(run), "evaluations": own}))
    six = evaluation(draws, "144", 6, 0.4 - gain, shared, images)
    return Setting(tuple(runs), ensembles=(six,))


def study(number, truth, seeds, images, draws):
    """The runs that a statement needs, in a world where `truth` is so."""

    def rising(recipe, plateau, accuracy, steps, **others):
        height = height_for(recipe, plateau, accuracy, steps)
        constant = constant_for(height, accuracy, steps)
        return runs_of(draws, recipe, height, constant, seeds, images, **others)

    plain = runs_of(draws, "inception", HEIGHT, TIME, seeds, images)
    if number in (1, 2):
        recipe = {1: "bn_baseline", 2: "bn_x5"}[number]
        own = rising(recipe, PLAIN + 0.028, TARGET, truth * PLAIN_STEPS)
        return Setting((*plain, *own))
    if number == 3:
        slower, gain = truth
        half, at = PLAIN / 2, 400.0
        fast = rising("bn_x5", PLAIN + 0.02, half, at)
        slow = rising("bn_x30", PLAIN + 0.02 + gain, half, slower * at)
        return Setting((*plain, *fast, *slow))
    if number == 4:
        return Setting((*plain, *rising("bn_x30", PLAIN + truth, PLAIN / 2, 600.0)))
    if number == 6:
        own = rising("bn_x5_sigmoid", 0.1, 0.05, 600.0)
        # At chance from the first step to the last, or risen a little at once.
        control = runs_of(draws, "inception_sigmoid", truth, 1.0, seeds, images)
        return Setting((*own, *control))
    if number == 8:
        lower = 0.03 if truth > 0 else 0.0
        dropout = ("network.dropout=0.4",)
        own = rising("bn_x5", 0.15 - lower, PLAIN / 2, 500.0, gap=truth)
        other = rising("bn_x5", 0.15, PLAIN / 2, 500.0, gap=0.0, overrides=dropout)
        return Setting(tuple(own), tuple(other))
    return ensembles(draws, truth, seeds, images)


def verdicts(number, truth, seeds, images, studies):
    """How often each decision falls."""
    draws = np.random.default_rng([number, seeds, images, abs(hash(truth)) % 1000])
    counts = Counter()
    for _ in range(studies):
        setting = study(number, truth, seeds, images, draws)
        parts = [measure.decide(setting) for measure in STATEMENTS[number - 1].measures]
        counts[together([part.decision for part in parts]).value] += 1
    return counts


def wrong(name, counts):
    """Of a cell's verdicts those that its truth contradicts."""
    against = {"false": ("holds",), "at the limit": ("holds", "does not hold")}
    return sum(counts[verdict] for verdict in against.get(name, ("does not hold",)))


def row(number, name, studies):
    """A truth's line of the table, and its largest share of wrong verdicts."""
    truth = TRUTHS[number][name]
    cells, worst = [], 0.0
    for images in IMAGES:
        for seeds in SEEDS:
            counts = verdicts(number, truth, seeds, images, studies)
            worst = max(worst, wrong(name, counts) / studies)
            shares = [100 * counts[decision] / studies for decision in ("holds", "does not hold")]
            cells.append(" / ".join(f"{share:.1f}" for share in shares))
    said = " and ".join(f"{value:.3g}" for value in np.atleast_1d(truth))
    title = STATEMENTS[number - 1].title
    return f"| {number}. {title} | {name}: {said} | {' | '.join(cells)} |", worst


def main():
    """Simulate every cell, on all cores, and write the table."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    header = [f"{s} seed{'s' * (s > 1)}, {n:,} images" for n in IMAGES for s in SEEDS]
    lines = [f"| | truth | {' | '.join(header)} |", f"|---|---|{'---:|' * len(header)}"]
    cells = [(number, name, studies) for number, truths in TRUTHS.items() for name in truths]
    with ProcessPoolExecutor() as pool:
        rows = list(pool.map(row, *zip(*cells, strict=True)))
    lines += [line for line, _ in rows]
    worst = max(share for _, share in rows)
    Path(__file__).with_suffix(".md").write_text(
        "# Simulated verdicts\n\n"
        f"`python experiments/judges_simulation.py {studies}`: {studies:,} studies a cell. Each "
        "cell: per cent that hold / do not hold; the rest is undecided. Wrong verdicts are at most "
        f"{100 * worst:.1f} % in any cell (at the limit, either verdict counts as wrong).\n\n"
        + "\n".join(lines)
        + "\n"
    )


if __name__ == "__main__":
    main()
