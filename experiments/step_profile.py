"""Where an update's time goes: the clock, the kernels on the device, the longest of them.

    python experiments/step_profile.py [key=value ...]

Takes what train takes; without arguments recipe=bn_x5 scale=paper. Random images, one process. A
device that is busy for less than the clock says waits for its host: launching is the limit.
"""

import sys
import time

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bn_inception.benchmark.step import our_step
from bn_inception.config import compose, run_config
from bn_inception.training.local_batch import LocalBatch
from bn_inception.training.machine import choose_device, resolve

CLASSES, UPDATES, SHOWN = 1000, 10, 15


def main() -> None:
    config = run_config(compose("train", ["scale=paper", *sys.argv[1:]]))
    device = choose_device(config.machine.device)
    count, size = config.batch.images, config.network.image_size
    machine = resolve(config.machine, device, LocalBatch(count, count, 1, 1))
    images = torch.rand(count, 3, size, size, device=device).mul_(2).sub_(1)
    labels = torch.arange(count, device=device) % CLASSES
    updates = our_step("", config, machine, [images], [labels], CLASSES).start()

    def seconds() -> float:
        """Of an update, until the device is done."""
        start = time.perf_counter()
        for _ in range(UPDATES):
            next(updates)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / UPDATES

    seconds()  # compiles, and allocates
    clock = 1e3 * seconds()
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiled:
        seconds()
    kind = DeviceType.CUDA if cuda else DeviceType.CPU
    rows = []
    for event in (each for each in profiled.key_averages() if each.device_type == kind):
        taken = event.self_device_time_total if cuda else event.self_cpu_time_total
        rows.append((taken / 1e3 / UPDATES, event.count / UPDATES, event.key))
    busy, operations = (sum(row[column] for row in rows) for column in (0, 1))
    print(f"{machine.described(device)}, {count} images of {size} pixels")
    print(f"an update: {clock:.2f} ms by the clock, {busy:.2f} on the device")
    print(f"{operations:.0f} operations there; the longest, ms:")
    for milliseconds, times, name in sorted(rows, reverse=True)[:SHOWN]:
        print(f"{milliseconds:9.3f} {times:6.1f} times  {name[:90]}")


if __name__ == "__main__":
    main()
