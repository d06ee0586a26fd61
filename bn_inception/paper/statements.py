"""What BN (Ioffe and Szegedy 2015, arXiv 1502.03167) states, and how a run can check it.

The paper's numbers are those of `results`. Where a criterion has a tolerance, it is this project's
choice, made before any run was judged by it.
"""

from dataclasses import dataclass

from bn_inception.paper.results import ENSEMBLE_MODELS, FIGURE_3

STEPS_SHARE_BN_BASELINE = 0.5
"""Statement 1: the share of plain Inception's steps below which "half" is kept."""
STEPS_SHARE_BN_X5 = 0.07
"""Statement 2: the share of plain Inception's steps (2.1e6 / 31.0e6 = 6.8 %, section 4.2.2)."""
STEPS_SHARE_TOLERANCE = 0.25
"""Statement 2: how much more, relative to the share, still counts as it: up to 8.75 %."""
SUBSTANTIAL_MARGIN = (FIGURE_3["bn_x30"].maximum_top1 - FIGURE_3["inception"].maximum_top1) / 2
"""Statement 4: half of the paper's 74.8 % - 72.2 %, a fraction (0.013)."""
GAP_TOLERANCE = 0.01
"""Statement 8: how much wider the gap may be and still count as "not more", a fraction."""
TOP5_ERROR_TOLERANCE = 0.003
"""Statement 9: how far above 4.9 % the top-5 error may lie, a fraction; the 95 % interval of 50,000
images at this error reaches 0.0019 to either side."""
INVARIANCE_TOLERANCE = 1e-9
"""Statement 7: largest relative difference in float64; epsilon accounts for the rest."""


@dataclass(frozen=True)
class Statement:
    """One statement.

    Attributes:
        number: by which it is asked for, from 1.
        title: the claim in a few words.
        claim: what is stated.
        place: where in the paper.
        paper: the paper's own numbers.
        measured: how a run's number is got.
        recipes: the recipes of the runs it needs, in the order in which they are named above.
        criterion: when it holds, with its tolerance, and when it does not.
    """

    number: int
    title: str
    claim: str
    place: str
    paper: str
    measured: str
    recipes: tuple[str, ...]
    criterion: str


_STEPS = (
    "steps of 32 images to the first evaluation at or above the target; the true step lies after "
    "the evaluation before it, which gives each ratio a lower and an upper bound. The target is "
    "plain Inception's maximum validation accuracy (the mean of its seeds)"
)
_ACCURACY = (
    "maximum top-1 validation accuracy, the mean over the seeds of a recipe; the 95 % interval of "
    "a difference is Welch's over the seeds, or binomial over the held-out images where a recipe "
    "has one seed"
)
_CHANCE = (
    "all evaluations of a run, each with a binomial interval, at 95 % for all of them together; "
    "chance is 1 / classes"
)

STATEMENTS: tuple[Statement, ...] = (
    Statement(
        1,
        "BN alone: half the steps",
        "Batch Normalization alone reaches the plain network's best accuracy in less than half "
        "the steps",
        "section 4.2.2, Figure 3",
        "13.3e6 / 31.0e6 steps = 42.9 %",
        _STEPS,
        ("inception", "bn_baseline"),
        "holds if the ratio's upper bound is below 50 %; does not hold if its lower bound is not, "
        "or if the target was not reached in that many steps",
    ),
    Statement(
        2,
        "BN-x5: 7 % of the steps",
        "BN-x5 reaches the plain network's best accuracy in 7 % of the steps",
        "section 4.2.2, Figure 3",
        "2.1e6 / 31.0e6 steps = 6.8 %",
        _STEPS,
        ("inception", "bn_x5"),
        "holds if the ratio's upper bound is at most 8.75 % (7 % and a quarter of it); does not "
        "hold if its lower bound is more, or if the target was not reached in that many steps",
    ),
    Statement(
        3,
        "BN-x30: slower start, higher end",
        "BN-x30 learns somewhat slower than BN-x5 at first, and ends higher",
        "section 4.2.2, Figure 3",
        "2.7e6 against 2.1e6 steps; 74.8 % against 73.0 %",
        f"slower: {_STEPS}. Higher: {_ACCURACY}",
        ("inception", "bn_x5", "bn_x30"),
        "holds if BN-x30 was still below the target when BN-x5 had met it, and the interval of "
        "the difference of their maxima lies above 0; does not hold if either lies on the other "
        "side",
    ),
    Statement(
        4,
        "BN exceeds the plain maximum",
        "A network with Batch Normalization exceeds the plain network's best accuracy by a "
        "substantial margin",
        "section 4.2.2, Figure 3",
        "74.8 % (BN-x30) against 72.2 %: 2.6 points",
        _ACCURACY,
        ("inception", "bn_x30"),
        "holds if the difference is at least 1.3 points (half the paper's) and its interval lies "
        "above 0; does not hold if the whole interval lies below 1.3 points",
    ),
    Statement(
        5,
        "Five times the rate",
        "The plain network at five times the learning rate diverges; with Batch Normalization it "
        "trains",
        "section 4.2.2",
        '"the model parameters to reach machine infinity"; BN-x5 reaches 73.0 %',
        f"a loss or parameter that is not finite ends a run as diverged. Training: {_CHANCE}",
        ("inception_x5", "bn_x5"),
        "holds if every run of the plain network diverged and every BN-x5 finished, above chance; "
        "does not hold if one did otherwise",
    ),
    Statement(
        6,
        "Sigmoid",
        "With Batch Normalization the network trains with sigmoid; without it the accuracy stays "
        "at chance",
        "section 4.2.2",
        "69.8 % against 0.1 % (1 / 1000)",
        _CHANCE,
        ("bn_x5_sigmoid", "inception_sigmoid"),
        "holds if every BN-x5-Sigmoid has an evaluation above chance and no plain network has; "
        "does not hold if one did otherwise",
    ),
    Statement(
        7,
        "Invariance to the weights' scale",
        "Scaling the weights by a leaves the output of Batch Normalization unchanged and divides "
        "the gradient with respect to them by a",
        "section 3.3",
        "BN((aW)u) = BN(Wu); dBN((aW)u)/d(aW) = 1/a dBN(Wu)/dW",
        "computed on the spot in float64, for each kind of normalization here and a = 0.1, 3, 100",
        (),
        "holds if the largest relative difference is at most 1e-9",
    ),
    Statement(
        8,
        "No dropout, no more overfitting",
        "Without dropout a network with Batch Normalization does not overfit more",
        "section 4.2.1",
        "no number",
        "the gap: training accuracy between the last two evaluations minus validation accuracy at "
        "the last one. Training accuracy is measured while training, on distorted crops and with "
        "dropout at work, so that the network with dropout shows a gap that is too small: a bias "
        "against the statement",
        ("bn_x5", "bn_x5 with network.dropout=0.4"),
        "holds if the interval of the gap's difference (without - with dropout) lies at or below "
        "1 point; does not hold if it lies above 1 point and the maximum validation accuracy "
        "without dropout is lower beyond the noise",
    ),
    Statement(
        9,
        "144 crops and an ensemble",
        "144 crops beat a single crop, and an ensemble of six networks beats one network, to a "
        "top-5 error of 4.9 %",
        "section 4.2.3, Figure 4",
        "top-5 error 7.82 % single crop, 5.82 % 144 crops, 4.9 % six networks",
        "top-5 error of saved evaluations; one network's is BN-x30's. The intervals of differences "
        "are those of paired samples where the predictions lie beside the evaluations, and "
        "binomial over the held-out images elsewhere",
        ("bn_x30", *(f"ensemble_{member}" for member in range(1, ENSEMBLE_MODELS + 1))),
        "holds if both differences lie above 0 with their whole interval and, for scale=paper on "
        "ImageNet, the ensemble's error is at most 5.2 %; does not hold if one lies below 0 "
        "with its whole interval, or the error is above 5.2 %. Other scales test the order alone",
    ),
)
"""The statements, by number."""
