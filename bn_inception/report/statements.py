"""The nine statements of BN (Ioffe and Szegedy 2015, arXiv 1502.03167) that runs can check.

The paper's numbers are those of `bn_inception.paper.results`. Where a criterion has a tolerance, it
is this project's choice, made before any run was judged by it. docs/statements.md has the rules.
"""

from dataclasses import dataclass
from functools import partial

from bn_inception.paper.results import FIGURE_3, FIGURE_4
from bn_inception.report import measures
from bn_inception.report.measures import Measure
from bn_inception.report.settings import PLAIN, Need


@dataclass(frozen=True)
class Statement:
    """One statement: in words, and its measures, all of which must hold.

    `limit` has the numbers of the measures and their tolerance in words. With `ensemble` an
    evaluation of six networks must be given.
    """

    number: int
    title: str
    claim: str
    place: str
    paper: str
    measured: str
    limit: str
    measures: tuple[Measure, ...]
    ensemble: bool = False

    @property
    def needs(self) -> tuple[Need, ...]:
        """The runs that its measures need, each once."""
        return tuple(dict.fromkeys(need for measure in self.measures for need in measure.needs))


BN_X5, BN_X30 = Need("bn_x5"), Need("bn_x30")
CROPPED = Need("bn_x30", crops=("single", "144"))
_PAPERS_GAIN = FIGURE_3["bn_x30"].maximum_top1 - FIGURE_3["inception"].maximum_top1

RULES = (
    "A statement holds if the whole 95 % interval of every part is on its side of the limit; it "
    "does not hold if that of one part is on the other side; else it is undecided.",
    "Steps, of 32 images, are those at which the isotonic regression of the accuracies crosses the "
    "target, the plain network's plateau less one point; ratios are taken by seed, and their "
    "geometric mean.",
    "A plateau is the mean top-1 accuracy of the last tenth of evaluations; differences are paired "
    "by seed. Chance is 1 / classes.",
)

STATEMENTS: tuple[Statement, ...] = (
    Statement(
        1,
        "BN alone: half the steps",
        "Batch Normalization alone reaches the plain network's best accuracy in less than half "
        "the steps",
        "section 4.2.2, Figure 3",
        "13.3e6 / 31.0e6 steps = 42.9 %",
        "steps of BN-Baseline relative to the plain network's",
        "below 50 %",
        (Measure(measures.steps_share, (PLAIN, Need("bn_baseline")), 0.5),),
    ),
    Statement(
        2,
        "BN-x5: 7 % of the steps",
        "BN-x5 reaches the plain network's best accuracy in 7 % of the steps",
        "section 4.2.2, Figure 3",
        "2.1e6 / 31.0e6 steps = 6.8 %",
        "steps of BN-x5 relative to the plain network's",
        "below 8.75 % (7 % and a quarter of it)",
        (Measure(measures.steps_share, (PLAIN, BN_X5), 0.0875),),
    ),
    Statement(
        3,
        "BN-x30: slower start, higher end",
        "BN-x30 learns somewhat slower than BN-x5 at first, and ends higher",
        "section 4.2.2, Figure 3",
        "2.7e6 against 2.1e6 steps; 74.8 % against 73.0 %",
        "steps of BN-x30 to half of the plain network's plateau, relative to BN-x5's; difference "
        "of their plateaus",
        "above 1; above 0",
        (
            Measure(measures.slower_start, (PLAIN, BN_X5, BN_X30), limit=0.5),
            Measure(measures.higher, (BN_X5, BN_X30)),
        ),
    ),
    Statement(
        4,
        "BN exceeds the plain maximum",
        "A network with Batch Normalization exceeds the plain network's best accuracy by a "
        "substantial margin",
        "section 4.2.2, Figure 3",
        "74.8 % (BN-x30) against 72.2 %: 2.6 points",
        "plateau of BN-x30 minus the plain network's",
        "above 1.3 points (half of the paper's)",
        (Measure(measures.higher, (PLAIN, BN_X30), _PAPERS_GAIN / 2),),
    ),
    Statement(
        5,
        "Five times the rate",
        "The plain network at five times the learning rate diverges; with Batch Normalization it "
        "trains",
        "section 4.2.2",
        '"the model parameters to reach machine infinity"; BN-x5 reaches 73.0 %',
        "plain runs at five times the rate that diverged (a loss or parameter was not finite); "
        "plateau of BN-x5",
        "all (none: does not hold); above twice chance, and every seed's",
        (Measure(measures.diverges, (Need("inception_x5"),)), Measure(measures.learns, (BN_X5,))),
    ),
    Statement(
        6,
        "Sigmoid",
        "With Batch Normalization the network trains with sigmoid; without it the accuracy stays "
        "at chance",
        "section 4.2.2",
        "69.8 % against 0.1 % (1 / 1000)",
        "plateaus of BN-x5-Sigmoid and of the plain sigmoid network",
        "above twice chance; below it; and every seed's",
        (
            Measure(measures.learns, (Need("bn_x5_sigmoid"),)),
            Measure(partial(measures.learns, wanted=False), (Need("inception_sigmoid"),)),
        ),
    ),
    Statement(
        7,
        "Invariance to the weights' scale",
        "Scaling the weights by a leaves the output of Batch Normalization unchanged and divides "
        "the gradient with respect to them by a",
        "section 3.3",
        "BN((aW)u) = BN(Wu); dBN((aW)u)/d(aW) = 1/a dBN(Wu)/dW",
        "largest relative difference, computed on the spot in float64, for each kind of "
        "normalization here and a = 0.1, 3, 100",
        "at most 1e-9",
        (Measure(measures.invariant, limit=1e-9),),  # epsilon accounts for what is left
    ),
    Statement(
        8,
        "No dropout, no more overfitting",
        "Without dropout a network with Batch Normalization does not overfit more",
        "section 4.2.1",
        "no number",
        "the gap between training accuracy over the last tenth of evaluations and the plateau: "
        "that of BN-x5 without dropout minus that with it. Training accuracy is measured on "
        "distorted crops and with dropout at work, so that the gap with dropout is too small: a "
        "bias against the statement",
        "below 1 point; it does not hold only if the plateau without dropout is lower too, with "
        "its whole interval",
        (Measure(measures.narrower_gap, (BN_X5, Need("bn_x5", "network.dropout=0.4")), 0.01),),
    ),
    Statement(
        9,
        "144 crops and an ensemble",
        "144 crops beat a single crop, and an ensemble of six networks beats one network, to a "
        "top-5 error of 4.9 %",
        "section 4.2.3, Figure 4",
        "top-5 error 7.82 % single crop, 5.82 % 144 crops, 4.9 % six networks",
        "top-5 error of a single crop minus that of 144; of one network, the mean of BN-x30's "
        "seeds, minus that of six. Images are paired where predictions lie beside the evaluations; "
        "the ensemble's difference counts the scatter between seeds too",
        "above 0; for scale=paper with 1,000 classes also an error below 5.2 %",
        (
            Measure(measures.crops_better, (CROPPED,)),
            Measure(measures.ensemble_better, (CROPPED,)),
            # The 95 % interval of 50,000 images at this error reaches 0.0019 to either side.
            Measure(measures.ensemble_error, (CROPPED,), FIGURE_4[-1].top5_error + 0.003),
        ),
        ensemble=True,
    ),
)
"""The statements, by number."""
