"""webdataset reading shards, with the reference's transform."""

from typing import Any

from bn_inception.benchmark.peers.reference import train_transform
from bn_inception.benchmark.ways import Images, Peer, Stream, Way, from_loader

_SHUFFLED = 256  # images that wait, encoded, to be drawn from


def _start(images: Images, workers: int, seed: int) -> Stream:
    import webdataset
    from torch.utils.data import DataLoader

    dataset = (
        webdataset.WebDataset(list(images.shards), shardshuffle=len(images.shards), seed=seed)
        .shuffle(_SHUFFLED)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(train_transform(images.size), _unchanged)
        .batched(images.batch)
        .repeat()
    )
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=None, num_workers=workers)
    return from_loader(loader)


def _unchanged(label: int) -> int:
    return label


PEER = Peer((Way("webdataset", _start, note="with the reference's transform"),), ("webdataset",))
