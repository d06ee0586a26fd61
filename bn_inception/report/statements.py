"""The nine statements of BN (Ioffe and Szegedy 2015, arXiv 1502.03167) that runs can check.

The paper's numbers are those of `bn_inception.paper.results`. Where a criterion has a tolerance, it
is this project's choice, made before any run was judged by it. docs/statements.md has the rules.
"""

from dataclasses import dataclass

from bn_inception.paper.results import FIGURE_3, FIGURE_4
from bn_inception.report.commands import Commands, another_seed, missing, missing_ensemble
from bn_inception.report.measures import (
    Measure,
    Part,
    crops_better,
    diverges,
    ensemble_better,
    ensemble_error,
    higher,
    invariant,
    learns,
    narrower_gap,
    slower_start,
    stays_at_chance,
    steps_share,
)
from bn_inception.report.settings import PLAIN, Need, Setting

STEPS_SHARE_BN_BASELINE = 0.5
"""Statement 1: the share of plain Inception's steps below which "half" is kept."""
STEPS_SHARE_BN_X5 = 0.0875
"""Statement 2: 7 % (2.1e6 / 31.0e6 = 6.8 %, section 4.2.2) and a quarter of it."""
START_SHARE = 0.5
"""Statement 3: the share of the plain network's plateau up to which a network "starts"."""
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
    """One statement: in words, and what of it is measured.

    Attributes:
        number: by which it is asked for, from 1.
        title: the claim in a few words.
        measured: how a run's number is got.
        criterion: when it holds, with its tolerance, and when it does not.
        measures: all must hold.
        ensemble: whether an evaluation of six networks must be given.
    """

    number: int
    title: str
    claim: str
    place: str
    paper: str
    measured: str
    criterion: str
    measures: tuple[Measure, ...]
    ensemble: bool = False

    @property
    def needs(self) -> tuple[Need, ...]:
        """The runs that its measures need, each once."""
        return tuple(dict.fromkeys(need for measure in self.measures for need in measure.needs))

    def missing(self, setting: Setting) -> tuple[list[str], Commands]:
        """What it lacks in a setting: reasons, and the commands that would make it."""
        found = [missing(setting, need) for need in self.needs]
        found += [missing_ensemble(setting)] if self.ensemble else []
        reasons = [reason for some, _ in found for reason in some]
        return reasons, [command for _, some in found for command in some]

    def another_seed(self, setting: Setting) -> Commands:
        """The commands of one more seed of all its runs."""
        return another_seed(setting, self.needs)

    def parts(self, setting: Setting) -> list[Part]:
        """What it comes to where nothing is missing."""
        return [measure.decide(setting) for measure in self.measures]


BN_X5, BN_X30 = Need("bn_x5"), Need("bn_x30")
CROPPED = Need("bn_x30", crops=("single", "144"))

_STEPS = (
    "steps of 32 images at which the isotonic regression of the accuracies crosses the target, the "
    "plain network's plateau less one point; ratios by seed, their geometric mean"
)
_PLATEAU = "plateaus (mean top-1 accuracy of the last tenth of evaluations), paired by seed"
_LEARNED = "the plateau, mean over seeds, against twice chance (2 / classes)"

STATEMENTS: tuple[Statement, ...] = (
    Statement(
        1,
        "BN alone: half the steps",
        "Batch Normalization alone reaches the plain network's best accuracy in less than half "
        "the steps",
        "section 4.2.2, Figure 3",
        "13.3e6 / 31.0e6 steps = 42.9 %",
        _STEPS,
        "holds if the ratio's interval lies below 50 %; does not hold if it lies above",
        (Measure(steps_share, (PLAIN, Need("bn_baseline")), STEPS_SHARE_BN_BASELINE),),
    ),
    Statement(
        2,
        "BN-x5: 7 % of the steps",
        "BN-x5 reaches the plain network's best accuracy in 7 % of the steps",
        "section 4.2.2, Figure 3",
        "2.1e6 / 31.0e6 steps = 6.8 %",
        _STEPS,
        "holds if the ratio's interval lies below 8.75 % (7 % and a quarter of it); does not hold "
        "if it lies above",
        (Measure(steps_share, (PLAIN, BN_X5), STEPS_SHARE_BN_X5),),
    ),
    Statement(
        3,
        "BN-x30: slower start, higher end",
        "BN-x30 learns somewhat slower than BN-x5 at first, and ends higher",
        "section 4.2.2, Figure 3",
        "2.7e6 against 2.1e6 steps; 74.8 % against 73.0 %",
        f"slower: steps, as in statement 1, to half of the plain network's plateau. "
        f"Higher: {_PLATEAU}",
        "holds if the interval of the ratio of steps lies above 1 and that of the difference of "
        "plateaus above 0; does not hold if either lies on the other side",
        (
            Measure(slower_start, (PLAIN, BN_X5, BN_X30), START_SHARE),
            Measure(higher, (BN_X5, BN_X30)),
        ),
    ),
    Statement(
        4,
        "BN exceeds the plain maximum",
        "A network with Batch Normalization exceeds the plain network's best accuracy by a "
        "substantial margin",
        "section 4.2.2, Figure 3",
        "74.8 % (BN-x30) against 72.2 %: 2.6 points",
        _PLATEAU,
        "holds if the difference's interval lies above 1.3 points (half the paper's); does not "
        "hold if it lies below",
        (Measure(higher, (PLAIN, BN_X30), SUBSTANTIAL_MARGIN),),
    ),
    Statement(
        5,
        "Five times the rate",
        "The plain network at five times the learning rate diverges; with Batch Normalization it "
        "trains",
        "section 4.2.2",
        '"the model parameters to reach machine infinity"; BN-x5 reaches 73.0 %',
        f"a loss or parameter that is not finite ends a run as diverged. Training: {_LEARNED}",
        "holds if every run of the plain network diverged and the interval of BN-x5's plateau lies "
        "above twice chance, and every seed's; does not hold if no plain network diverged, or that "
        "interval lies below",
        (
            Measure(diverges, (Need("inception_x5"),)),
            Measure(learns, (BN_X5,)),
        ),
    ),
    Statement(
        6,
        "Sigmoid",
        "With Batch Normalization the network trains with sigmoid; without it the accuracy stays "
        "at chance",
        "section 4.2.2",
        "69.8 % against 0.1 % (1 / 1000)",
        _LEARNED,
        "holds if the interval of BN-x5-Sigmoid's plateau lies above twice chance and that of the "
        "plain network's below, and every seed's; does not hold if either lies on the other side",
        (
            Measure(learns, (Need("bn_x5_sigmoid"),)),
            Measure(stays_at_chance, (Need("inception_sigmoid"),)),
        ),
    ),
    Statement(
        7,
        "Invariance to the weights' scale",
        "Scaling the weights by a leaves the output of Batch Normalization unchanged and divides "
        "the gradient with respect to them by a",
        "section 3.3",
        "BN((aW)u) = BN(Wu); dBN((aW)u)/d(aW) = 1/a dBN(Wu)/dW",
        "computed on the spot in float64, for each kind of normalization here and a = 0.1, 3, 100",
        "holds if the largest relative difference is at most 1e-9",
        (Measure(invariant, limit=INVARIANCE_TOLERANCE),),
    ),
    Statement(
        8,
        "No dropout, no more overfitting",
        "Without dropout a network with Batch Normalization does not overfit more",
        "section 4.2.1",
        "no number",
        "the gap: training accuracy over the last tenth of evaluations minus the plateau, paired "
        "by seed. Training accuracy is measured while training, on distorted crops and with "
        "dropout at work, so that the network with dropout shows a gap that is too small: a bias "
        "against the statement",
        "holds if the interval of the gap's difference (without - with dropout) lies below 1 "
        "point; does not hold if it lies above 1 point and the plateau without dropout is lower, "
        "with its whole interval",
        (Measure(narrower_gap, (BN_X5, Need("bn_x5", "network.dropout=0.4")), GAP_TOLERANCE),),
    ),
    Statement(
        9,
        "144 crops and an ensemble",
        "144 crops beat a single crop, and an ensemble of six networks beats one network, to a "
        "top-5 error of 4.9 %",
        "section 4.2.3, Figure 4",
        "top-5 error 7.82 % single crop, 5.82 % 144 crops, 4.9 % six networks",
        "top-5 error of saved evaluations; one network's is the mean over BN-x30's seeds. Images "
        "are paired where predictions lie beside the evaluations; the ensemble's difference "
        "counts the scatter between seeds too",
        "holds if both differences lie above 0 with their whole interval and, for scale=paper on "
        "ImageNet, the ensemble's error lies below 5.2 % with its interval; does not hold if one "
        "lies on the other side. Other scales test the order alone",
        (
            Measure(crops_better, (CROPPED,)),
            Measure(ensemble_better, (CROPPED,)),
            Measure(ensemble_error, (CROPPED,), FIGURE_4[-1].top5_error + TOP5_ERROR_TOLERANCE),
        ),
        ensemble=True,
    ),
)
"""The statements, by number."""
