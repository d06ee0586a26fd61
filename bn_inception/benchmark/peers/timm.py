"""timm's loader and train transform, without its prefetcher, which needs CUDA."""

from functools import partial
from typing import Any

from bn_inception.benchmark.ways import Images, Peer, Stream, Way, from_loader, timed_batches

_PREFETCHED = 2  # batches a worker, torch's default


class _Repeated:
    """A data set read several times over, since timm's loader ends with its data set."""

    def __init__(self, dataset: Any, images: int) -> None:
        self.dataset = dataset
        self.images = images

    @property
    def transform(self) -> Any:
        return self.dataset.transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        self.dataset.transform = transform

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index % len(self.dataset)]


def _start(
    images: Images, workers: int, seed: int, *, jitter: float | None, bytes_out: bool = False
) -> Stream:
    import torch
    from timm.data import create_dataset, create_loader
    from timm.data.loader import fast_collate
    from timm.data.transforms_factory import create_transform

    torch.manual_seed(seed)
    batches = timed_batches(images, workers) + (2 + _PREFETCHED) * max(1, workers)
    dataset = _Repeated(
        create_dataset("", root=images.folder, is_training=True), batches * images.batch
    )
    shape = (3, images.size, images.size)
    loader = create_loader(
        dataset,
        input_size=shape,
        batch_size=images.batch,
        is_training=True,
        color_jitter=jitter,
        interpolation="random",  # the default of its training script
        num_workers=workers,
        use_prefetcher=False,
        collate_fn=fast_collate if bytes_out else None,
        device=torch.device("cpu"),
    )
    if bytes_out:  # what the prefetcher is given: uint8, normalized on the device
        dataset.transform = create_transform(
            shape,
            is_training=True,
            color_jitter=jitter,
            interpolation="random",
            use_prefetcher=True,
        )
    return from_loader(loader)


PEER = Peer(
    (
        Way("timm, without colour jitter", partial(_start, jitter=None)),
        Way(
            "timm, without colour jitter, uint8",
            partial(_start, jitter=None, bytes_out=True),
            note="its fast collate; normalization is the device's part",
        ),
        Way(
            "timm, its default",
            partial(_start, jitter=0.4),
            distorted=True,
            note="ColorJitter(0.4, 0.4, 0.4), no hue",
        ),
    ),
    ("timm",),
)
