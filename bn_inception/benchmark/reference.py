"""What every ratio refers to: torchvision's published recipe, its transform and its plain loop.

`references/classification` in pytorch/vision with its default arguments. Loop: `train_one_epoch` of
train.py, eager, NCHW, float32, torch.optim.SGD as it comes, cuDNN's own search for algorithms, and
loss and accuracies read back at every step. GoogLeNet's auxiliary loss is added, which that script
leaves out: both loops train the same thing. Transform: `ClassificationPresetTrain` of presets.py.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bn_inception.network import AUXILIARY_LOSS_WEIGHT, Logits
from bn_inception.training.optimizer import OptimizerConfig

WINDOW = 20  # values that the script's meters smooth over
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FULL_JITTER = (0.5, 0.5, 0.5, 0.2)
"""ColorJitter's (brightness, contrast, saturation, hue) that span our full distortion's ranges."""


def train_transform(size: int, jitter: tuple[float, ...] = ()) -> Callable[[Any], Tensor]:
    """From a PIL image to float (3, size, size); ColorJitter(*jitter) after the mirror if given."""
    from torchvision import transforms as t

    made: Callable[[Any], Tensor] = t.Compose(
        [
            t.RandomResizedCrop(size, interpolation=t.InterpolationMode.BILINEAR, antialias=True),
            t.RandomHorizontalFlip(0.5),
            *([t.ColorJitter(*jitter)] if jitter else []),
            t.PILToTensor(),
            t.ConvertImageDtype(torch.float),
            t.Normalize(MEAN, DEVIATION),
        ]
    )
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
        self.meters = {name: deque[float](maxlen=WINDOW) for name in ("loss", "acc1", "acc5")}

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
        for name, value in (("loss", loss), ("acc1", first), ("acc5", five)):
            self.meters[name].append(value.item())
