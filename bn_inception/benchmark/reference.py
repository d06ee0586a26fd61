"""What every ratio refers to: torchvision's published recipe, its transform and its plain loop.

`references/classification` in pytorch/vision with its defaults: `train_one_epoch` of train.py
(eager, NCHW, float32, cuDNN's own search, loss and accuracies read back at every step), and
`ClassificationPresetTrain` of presets.py. GoogLeNet's auxiliary loss is added: both train the same.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bn_inception.network import AUXILIARY_LOSS_WEIGHT, Logits
from bn_inception.training.settings import OptimizerConfig

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FULL_JITTER = (0.5, 0.5, 0.5, 0.2)
"""ColorJitter's (brightness, contrast, saturation, hue) that span our full distortion's ranges."""


def train_transform(size: int, jitter: tuple[float, ...] = ()) -> Callable[[Any], Tensor]:
    """From a PIL image to float (3, size, size); ColorJitter(*jitter) after the mirror if given."""
    from torchvision import transforms as t

    steps = [
        t.RandomResizedCrop(size, interpolation=t.InterpolationMode.BILINEAR, antialias=True),
        t.RandomHorizontalFlip(0.5),
        *([t.ColorJitter(*jitter)] if jitter else []),
        t.PILToTensor(),
        t.ConvertImageDtype(torch.float),
        t.Normalize(MEAN, DEVIATION),
    ]
    made: Callable[[Any], Tensor] = t.Compose(steps)
    return made


class PlainLoop:
    """Trains `network` (on its device, in training mode, contiguous) as the script would."""

    def __init__(self, network: nn.Module, config: OptimizerConfig) -> None:
        self._network = network
        self._optimizer = torch.optim.SGD(
            network.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,  # on all parameters, as the script has it by default
        )
        self.meters: dict[str, float] = {}

    @staticmethod
    def prepare() -> None:
        """Set what the script sets for its process, or leaves as torch has it."""
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("highest")

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One update: images (N, 3, S, S) float32, labels (N,) int64."""
        output = self._network(images)
        logits = output.main if isinstance(output, Logits) else output
        loss = F.cross_entropy(logits, labels)
        if isinstance(output, Logits):
            loss = loss + AUXILIARY_LOSS_WEIGHT * F.cross_entropy(output.auxiliary, labels)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        with torch.inference_mode():
            hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            first, five = (hits[:, :k].sum() * (100.0 / len(labels)) for k in (1, 5))
        self.meters = {"loss": loss.item(), "acc1": first.item(), "acc5": five.item()}
