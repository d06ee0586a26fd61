"""NVIDIA DALI on the CPU: decoding of the crop alone, resize, mirror and normalization."""

from functools import partial
from pathlib import Path

from bn_inception.benchmark.peers.reference import DEVIATION, MEAN
from bn_inception.benchmark.ways import Images, Peer, Stream, Way

# DALI's hue is in degrees; the other ranges are factors.
_FULL_FACTORS, _FULL_DEGREES = (0.5, 1.5), 72.0


def _start(images: Images, workers: int, seed: int, *, distorted: bool = False) -> Stream:
    from nvidia.dali import fn, pipeline_def, types

    files = sorted(Path(images.folder).rglob("*.jpg"))

    @pipeline_def
    def pipeline():  # type: ignore[no-untyped-def]
        encoded, labels = fn.readers.file(
            files=[str(file) for file in files],
            labels=[int(file.parent.name) for file in files],
            random_shuffle=True,
            initial_fill=len(files),
            name="reader",
        )
        pixels = fn.decoders.image_random_crop(
            encoded, device="cpu", random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3]
        )
        pixels = fn.resize(pixels, size=[images.size, images.size], antialias=True)
        if distorted:
            factor, turn = list(_FULL_FACTORS), [-_FULL_DEGREES, _FULL_DEGREES]
            pixels = fn.color_twist(
                pixels,
                brightness=fn.random.uniform(range=factor),
                contrast=fn.random.uniform(range=factor),
                saturation=fn.random.uniform(range=factor),
                hue=fn.random.uniform(range=turn),
            )
        values = fn.crop_mirror_normalize(
            pixels,
            dtype=types.FLOAT,
            output_layout="CHW",
            mean=[255 * mean for mean in MEAN],
            std=[255 * deviation for deviation in DEVIATION],
            mirror=fn.random.coin_flip(probability=0.5),
        )
        return values, labels

    # Without workers nothing is made ahead: one thread works while this one waits.
    alone = {} if workers else {"exec_pipelined": False, "exec_async": False}
    built = pipeline(
        batch_size=images.batch,
        num_threads=max(1, workers),
        device_id=None,
        seed=seed,
        prefetch_queue_depth=2 if workers else 1,
        **alone,
    )
    built.build()
    while True:
        _, labels = built.run()
        yield len(labels)


_THREADS = "threads in place of workers, and one more that reads"

PEER = Peer(
    (
        Way("DALI on the CPU", _start, note=_THREADS),
        Way(
            "DALI on the CPU, full colour twist",
            partial(_start, distorted=True),
            distorted=True,
            note=_THREADS,
        ),
    ),
    # The same code for one or another release of CUDA; none is needed here.
    ("nvidia-dali-cuda120", "nvidia-dali-cuda130"),
)
