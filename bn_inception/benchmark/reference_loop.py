"""The plain loop that a step is compared with: what torchvision's reference script does.

Of `references/classification/train.py` in pytorch/vision, `train_one_epoch` with its default
arguments: eager, NCHW, float32, torch.optim.SGD as it comes, cuDNN's own search for algorithms, and
loss and accuracies read back at every step. GoogLeNet's auxiliary loss is added, which that script
leaves out, so that both loops train the same thing. Written for this comparison; batches are given
as they would leave its loader, float32 on the device.
"""

from collections import deque

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bn_inception.network import AUXILIARY_LOSS_WEIGHT, Logits

WINDOW = 20
"""Values that the script's meters smooth over."""


class ReferenceLoop:
    """Trains `network` as the script would.

    Args:
        network: on its device, in training mode, contiguous (NCHW).
        learning_rate: of SGD.
        momentum: of SGD.
        weight_decay: of SGD, on all parameters, as the script has it by default.
    """

    def __init__(
        self, network: nn.Module, learning_rate: float, momentum: float, weight_decay: float
    ) -> None:
        self._network = network
        self._optimizer = torch.optim.SGD(
            network.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay
        )
        self._meters = {name: deque[float](maxlen=WINDOW) for name in ("loss", "acc1", "acc5")}

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
        acc1, acc5 = _accuracies(logits, labels)
        self._meters["loss"].append(loss.item())
        self._meters["acc1"].append(acc1.item())
        self._meters["acc5"].append(acc5.item())


def _accuracies(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Top-1 and top-5 in percent."""
    with torch.inference_mode():
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices.t()
        hits = top == labels[None]
        first, five = (hits[:k].flatten().sum(dtype=torch.float32) for k in (1, 5))
        return first * (100.0 / len(labels)), five * (100.0 / len(labels))
