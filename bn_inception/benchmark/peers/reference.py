"""torchvision's reference recipe for ImageNet, as published: what every ratio refers to.

`references/classification/presets.py` of the torchvision repository, `ClassificationPresetTrain`
with its defaults (backend "pil"): RandomResizedCrop (bilinear, antialiased), mirror, PILToTensor,
float, Normalize with ImageNet's mean and deviation.
"""

from functools import partial
from typing import Any

from bn_inception.benchmark.ways import Images, Peer, Stream, Way, from_loader

REFERENCE = "torchvision reference"
REFERENCE_FULL = "torchvision reference, full ColorJitter"

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# (brightness, contrast, saturation, hue): the ranges of the full photometric distortion.
FULL_JITTER = (0.5, 0.5, 0.5, 0.2)

_ENDLESS = 2**40  # images


def train_transform(size: int, jitter: tuple[float, ...] = ()) -> Any:
    """The reference's training transform, with ColorJitter after the mirror if asked for.

    Args:
        size: S in pixels.
        jitter: arguments of ColorJitter.
    """
    import torch
    from torchvision import transforms as t

    return t.Compose(
        [
            t.RandomResizedCrop(size, interpolation=t.InterpolationMode.BILINEAR, antialias=True),
            t.RandomHorizontalFlip(0.5),
            *([t.ColorJitter(*jitter)] if jitter else []),
            t.PILToTensor(),
            t.ConvertImageDtype(torch.float),
            t.Normalize(MEAN, DEVIATION),
        ]
    )


def _start(images: Images, workers: int, seed: int, *, jitter: tuple[float, ...] = ()) -> Stream:
    import torch
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision.datasets import ImageFolder

    generator = torch.Generator().manual_seed(seed)
    dataset = ImageFolder(images.folder, train_transform(images.size, jitter))
    # One permutation after the other.
    sampler = RandomSampler(dataset, num_samples=_ENDLESS, generator=generator)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=images.batch,
        sampler=sampler,
        num_workers=workers,
        generator=generator,
    )
    return from_loader(loader)


PEER = Peer(
    (
        Way(REFERENCE, _start),
        Way(REFERENCE_FULL, partial(_start, jitter=FULL_JITTER), distorted=True),
    ),
    ("torchvision",),
)
