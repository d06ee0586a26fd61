"""CPU time of an update that is looked into, over that of one that is not, in one process.

    python experiments/probe_cost.py ROUNDS recipe=bn_baseline scale=cpu 'probe.layers=[5b]'

The two take turns on the same random images. With `probe.every=N` one update of N is looked into.
"""

import statistics
import sys
import time

import torch

from bn_inception.config import compose, run_config
from bn_inception.network import Inception, initialize
from bn_inception.training.learner import build_optimizer
from bn_inception.training.probe import Probe
from bn_inception.training.step import train_step

CLASSES = 100


def main() -> None:
    config = run_config(compose("train", sys.argv[2:]))
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    network = Inception(config.network, CLASSES)
    initialize(network, generator)
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(network, config.optimizer)
    count, size = config.batch.images, config.network.image_size
    images = torch.rand(count, 3, size, size, generator=generator) * 2 - 1
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    probe = Probe(config.probe, network, count, compiled=False, silent=False)

    def seconds(step: int) -> float:
        start = time.process_time()
        with probe.watching(step):
            train_step(network, optimizer, images, labels, 0.0)
        return time.process_time() - start

    every = config.probe.every
    seconds(every), seconds(every + 1)  # the first ones are slower
    pairs = [(seconds(every), seconds(every + 1)) for _ in range(int(sys.argv[1]))]
    ratios = [looked / plain for looked, plain in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    plain_ms = 1000 * statistics.median(plain for _, plain in pairs)
    print(f"an update without a look: {plain_ms:.0f} ms of CPU time")
    print(f"with a look {middle:.3f} times (quartiles {low:.3f} to {high:.3f} of {len(ratios)})")
    print(f"a run with probe.every={every}: {1 + (middle - 1) / every:.5f} times")


if __name__ == "__main__":
    main()
