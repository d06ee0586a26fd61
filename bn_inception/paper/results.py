"""The numbers that BN (Ioffe and Szegedy 2015, arXiv 1502.03167) reports, and where it does.

Accuracies and errors are fractions, durations are steps of 32 images. GN is arXiv 1409.4842.
"""

from dataclasses import dataclass

IMAGENET_TRAIN_IMAGES, IMAGENET_VALIDATION_IMAGES, IMAGENET_CLASSES = 1_281_167, 50_000, 1000
"""ILSVRC 2012; Figures 2, 3 and 4 are measured on its validation images."""

MINI_BATCH = 32
"""Section 4.2: images in a training step, in every recipe."""

TARGET_TOP1 = 0.722
"""Figure 3: the plain network's maximum accuracy; steps are counted until it is reached."""
PARAMETERS = 13.6e6
"""Section 4.2: the parameters of the Inception network trained there."""


@dataclass(frozen=True)
class RecipeResult:
    """One row of Figure 3: title as printed, steps of 32 images, top-1 validation accuracy.

    Steps are to TARGET_TOP1, None if it was never reached; section 4.2.2 has one maximum's.
    """

    name: str
    title: str
    steps_to_72_2: int | None
    maximum_top1: float
    maximum_at_step: int | None = None


FIGURE_3 = {
    result.name: result
    for result in (
        RecipeResult("inception", "Inception", 31_000_000, 0.722),
        RecipeResult("bn_baseline", "BN-Baseline", 13_300_000, 0.727),
        RecipeResult("bn_x5", "BN-x5", 2_100_000, 0.730),
        RecipeResult("bn_x30", "BN-x30", 2_700_000, 0.748, maximum_at_step=6_000_000),
        RecipeResult("bn_x5_sigmoid", "BN-x5-Sigmoid", None, 0.698),
    )
}
"""Figure 3: steps to 72.2 % and maximum accuracy, in the paper's order."""

CONTROLS = {
    "inception_x5": "the model parameters reach machine infinity",
    "inception_sigmoid": "the accuracy remains equivalent to chance",
}
"""Section 4.2.2 on plain Inception at five times the rate, and with sigmoid."""


@dataclass(frozen=True)
class ReportedErrors:
    """One row of Figure 4: errors on the validation set, None if no number is printed."""

    title: str
    crops: int | None
    models: int | None
    top1_error: float | None
    top5_error: float


FIGURE_4 = (
    ReportedErrors("GoogLeNet ensemble", 144, 7, None, 0.0667),
    ReportedErrors("Deep Image low-res", None, 1, None, 0.0796),
    ReportedErrors("Deep Image high-res", None, 1, 0.2488, 0.0742),
    ReportedErrors("Deep Image ensemble", None, None, None, 0.0598),
    ReportedErrors("BN-Inception single crop", 1, 1, 0.252, 0.0782),
    ReportedErrors("BN-Inception multicrop", 144, 1, 0.2199, 0.0582),
    ReportedErrors("BN-Inception ensemble", 144, 6, 0.201, 0.049),
)
"""Figure 4, in the paper's order."""

ENSEMBLE_MODELS = 6
"""Section 4.2.3: networks in the ensemble, each BN-x30 with some changes."""
MULTICROP_SCALES = (256, 288, 320, 352)
"""GN section 7: shorter sides in pixels; 4 scales x 3 squares x 6 crops x 2 mirrors = 144."""

MNIST_STEPS = 50_000
"""Section 4.1 and Figure 1: training steps of the MNIST experiment."""
MNIST_MINI_BATCH = 60
"""Section 4.1: images in one of its mini-batches."""
MNIST_HIDDEN_UNITS = (100, 100, 100)
"""Section 4.1: sigmoid units of its fully-connected hidden layers."""
FIGURE_1_PERCENTILES = (15, 50, 85)
"""Figure 1(b, c): percentiles of the input to one typical sigmoid of the last hidden layer."""
