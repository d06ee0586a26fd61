"""Where an update's time goes: the clock, the kernels on the device, the longest of them.

    python experiments/step_profile.py [key=value ...]

Takes what train takes; without arguments recipe=bn_x5 scale=paper. Random images, one process. A
device that is busy for less than the clock says waits for its host: launching is the limit.
"""

import sys

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bn_inception.benchmark.step import our_step_alone
from bn_inception.benchmark.timing import take_turn
from bn_inception.config import compose, run_config
from bn_inception.network import Normalization
from bn_inception.training.local_batch import local_batch
from bn_inception.training.machine import choose_device

CLASSES, UPDATES, SHOWN = 1000, 10, 15


def main() -> None:
    config = run_config(compose("train", ["scale=paper", *sys.argv[1:]]))
    device = choose_device(config.machine.device)
    cuda, images = device.type == "cuda", config.batch.images
    normalized = config.network.normalization is not Normalization.none
    part = local_batch(config.batch, 1, normalized=normalized)
    way = our_step_alone(config, CLASSES, part, device)
    take_turn(way, device, untimed=way.warm_up, units=UPDATES)
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiled:
        take_turn(way, device, units=UPDATES)
    kind = DeviceType.CUDA if cuda else DeviceType.CPU
    rows = []
    for event in (each for each in profiled.key_averages() if each.device_type == kind):
        taken = event.self_device_time_total if cuda else event.self_cpu_time_total
        rows.append((taken / 1e3 / UPDATES, event.count / UPDATES, event.key))
    busy, operations = (sum(row[column] for row in rows) for column in (0, 1))
    print(f"{way.note}, {images} images of {config.network.image_size} pixels")
    print(f"an update: {1e3 * way.seconds[0]:.2f} ms by the clock, {busy:.2f} on the device")
    print(f"{operations:.0f} operations there; the longest, ms:")
    for milliseconds, times, name in sorted(rows, reverse=True)[:SHOWN]:
        print(f"{milliseconds:9.3f} {times:6.1f} times  {name[:90]}")


if __name__ == "__main__":
    main()
