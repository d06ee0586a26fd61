"""Other loaders beside ours and torchvision's recipe: timm, webdataset, DALI on the CPU.

    pip install timm webdataset nvidia-dali-cuda120      # what is missing is skipped and named
    python experiments/peers.py data.root=FOLDER [data=KIND] [images=1024] [rounds=5] [workers=1]

Takes turns with the ways of `bn-inception benchmark input`, on copies of the same images. All run
in one process, which none of them expects: compare ratios, and only those of one call.
"""

import io
import itertools
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import ConcatDataset, DataLoader

from bn_inception.benchmark.input import (
    FULL,
    LOADER,
    REFERENCE,
    REFERENCE_FULL,
    Chosen,
    rows_of,
    ways_of,
)
from bn_inception.benchmark.reference import DEVIATION, MEAN, train_transform
from bn_inception.benchmark.timing import (
    CPU,
    Measured,
    Stream,
    Way,
    each_other_way_round,
    take_turn,
)
from bn_inception.data import DataConfig, DataKind, open_sources
from bn_inception.paper.results import MINI_BATCH

SIZE, SHARDS = 224, 8


def copies(images: Chosen, folder: Path) -> None:
    """Class folders in FOLDER/images, tar files of the WebDataset convention beside them."""
    tars = [tarfile.open(folder / f"{number}.tar", "w") for number in range(SHARDS)]  # noqa: SIM115
    for index in range(len(images)):
        data, label = images.read(index), int(images.labels[index])
        place = folder / "images" / f"{label:06d}" / f"{index:08d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        for suffix, content in (("jpg", data), ("cls", str(label).encode())):
            member = tarfile.TarInfo(f"{index:08d}.{suffix}")
            member.size = len(content)
            tars[index % SHARDS].addfile(member, io.BytesIO(content))
    for tar in tars:
        tar.close()


def timm(folder: Path, workers: int, jitter: float | None) -> Stream:
    """The loader and train transform of timm, without its prefetcher, which needs CUDA."""
    from timm.data import create_dataset, create_loader

    once = create_dataset("", root=str(folder / "images"), is_training=True)
    loader = create_loader(
        once, (3, SIZE, SIZE), MINI_BATCH, is_training=True, color_jitter=jitter,
        interpolation="random", num_workers=workers, use_prefetcher=False, device=CPU,
    )  # fmt: skip
    many = ConcatDataset([once] * 1000)  # its loader ends with its data set
    yield from DataLoader(many, MINI_BATCH, shuffle=True, num_workers=workers,
                          collate_fn=loader.collate_fn)  # fmt: skip


def webdataset(folder: Path, workers: int) -> Stream:
    """Tar files, the reference's transform."""
    import webdataset as wds

    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    dataset = wds.WebDataset(urls, shardshuffle=SHARDS).shuffle(256).decode("pil")
    dataset = dataset.to_tuple("jpg", "cls").map_tuple(train_transform(SIZE), int)
    yield from DataLoader(dataset.batched(MINI_BATCH).repeat(), None, num_workers=workers)


def dali(folder: Path, workers: int, twist: bool) -> Stream:
    """Threads in place of workers, and one more that reads; decodes no more than the crop."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def
    def pipeline():  # type: ignore[no-untyped-def]
        encoded, labels = fn.readers.file(file_root=str(folder / "images"), random_shuffle=True)
        area, aspect = [0.08, 1.0], [3 / 4, 4 / 3]
        pixels = fn.decoders.image_random_crop(
            encoded, device="cpu", random_area=area, random_aspect_ratio=aspect
        )
        pixels = fn.resize(pixels, size=[SIZE, SIZE], antialias=True)
        if twist:  # hue in degrees, the others as factors
            ranges = {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5}
            factors = {k: fn.random.uniform(range=[1 - v, 1 + v]) for k, v in ranges.items()}
            turn = fn.random.uniform(range=[-72.0, 72.0])
            pixels = fn.color_twist(pixels, hue=turn, **factors)
        mean, std = ([255 * value for value in values] for values in (MEAN, DEVIATION))
        return fn.crop_mirror_normalize(
            pixels, dtype=types.FLOAT, output_layout="CHW", mean=mean, std=std,
            mirror=fn.random.coin_flip(probability=0.5),
        ), labels  # fmt: skip

    built = pipeline(batch_size=MINI_BATCH, num_threads=max(1, workers), device_id=None)
    built.build()
    yield from (built.run() for _ in itertools.count())


def peers(folder: Path, workers: int) -> Iterator[Way]:
    """Those that are installed; a name that ends in FULL is set beside the full ColorJitter."""
    for name, start in (
        ("timm, without colour jitter", lambda: timm(folder, workers, None)),
        (f"timm, its default{FULL}", lambda: timm(folder, workers, 0.4)),
        ("webdataset", lambda: webdataset(folder, workers)),
        ("DALI on the CPU", lambda: dali(folder, workers, False)),
        (f"DALI on the CPU, colour twist{FULL}", lambda: dali(folder, workers, True)),
    ):
        way = Way(name, start, max(1, workers))
        try:
            take_turn(way, CPU, untimed=1)
        except ImportError as error:
            print(f"skipped: {name} ({error})", file=sys.stderr)
            continue
        yield way


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    wanted, rounds, workers = (int(given.get(key, default)) for key, default in
                               (("images", 1024), ("rounds", 5), ("workers", 1)))  # fmt: skip
    data = DataConfig(DataKind(given.get("data", "folder")), given["data.root"])
    images = Chosen(open_sources(data).train, wanted)
    torch.set_num_threads(1)
    kept = (LOADER, LOADER + FULL, REFERENCE, REFERENCE_FULL)
    units = -(-wanted // (MINI_BATCH * max(1, workers))) * max(1, workers)
    with tempfile.TemporaryDirectory() as name:
        copies(images, Path(name))
        ways = [way for way in ways_of(images, SIZE, workers) if way.name in kept]
        ways += peers(Path(name), workers)
        for number in range(rounds):
            for way in each_other_way_round(ways, number):
                take_turn(way, CPU, untimed=way.warm_up, units=units)
    Measured(rows_of(ways, workers), {}).show(None)


if __name__ == "__main__":
    main()
