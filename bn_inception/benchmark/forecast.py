"""How long runs take, and on how much of what: a model in few lines.

Nothing is measured here; `benchmark.rates` measures the speeds that go in.
"""

from dataclasses import dataclass

FLOAT_BYTES = 4
MOMENTA = 1  # SGD keeps one tensor beside each parameter's
BACKWARD_COST = 2  # forwards that a backward pass costs: one product each for inputs and weights
RECORD_BYTES = 310
"""Bytes that a log step adds to metrics.jsonl (170) and to TensorBoard's file (140)."""
WORKER_BYTES = 300 * 2**20
"""Private memory of a process that reads images: an interpreter's heap with torch, Pillow and the
batch in work. An assumption; what it shares with the others is not counted."""
CHECKPOINTS = 2  # last.pt and previous.pt, each with the momenta; best.pt has none


@dataclass(frozen=True)
class Speed:
    """What one process and one worker do in a second.

    Attributes:
        update_seconds: forward, backward and update of the images that a process holds.
        worker_images_per_second: decoded and cut by one worker on one core; None where unknown.
        exchange_bytes_per_second: of a process's link, in one direction; None where unknown.
        exchange_latency: seconds of the smallest exchange between all processes.
    """

    update_seconds: float
    worker_images_per_second: float | None
    exchange_bytes_per_second: float | None = None
    exchange_latency: float = 0.0


@dataclass(frozen=True)
class Layout:
    """How a run lies on the machines.

    Attributes:
        processes: one a GPU (or one in all, on a CPU).
        images: of an update that a process holds.
        sharers: processes that hold one group of Batch Normalization together.
        workers: that read images, over all processes.
    """

    processes: int
    images: int
    sharers: int
    workers: int


@dataclass(frozen=True)
class Work:
    """What one run has to do.

    Attributes:
        updates: steps of the run.
        evaluations: of the held-out set.
        validation_images: images of one.
        parameters: of the network while it trains, the auxiliary head included.
        normalizations: layers with Batch Normalization.
    """

    updates: int
    evaluations: int
    validation_images: int
    parameters: int
    normalizations: int


@dataclass(frozen=True)
class Forecast:
    """What one run is expected to take.

    Attributes:
        compute_seconds: an update: forward, backward, update.
        exchange_seconds: an update: gradients, and statistics where a group is shared; None where
            it is not known, and then left out.
        loading_seconds: the time in which the workers make an update's images; None likewise.
        training_seconds: all updates.
        evaluation_seconds: all evaluations.
        processes: as planned.
    """

    compute_seconds: float
    exchange_seconds: float | None
    loading_seconds: float | None
    training_seconds: float
    evaluation_seconds: float
    processes: int

    @property
    def hours(self) -> float:
        """From the first update to the last evaluation."""
        return (self.training_seconds + self.evaluation_seconds) / 3600

    @property
    def process_hours(self) -> float:
        """The same, times the processes: GPU-hours where each has a GPU."""
        return self.hours * self.processes

    @property
    def working_seconds(self) -> float:
        """An update whose images are there: computing and exchanging."""
        return self.compute_seconds + (self.exchange_seconds or 0.0)

    @property
    def bound(self) -> str:
        """What the rest waits for: "loading", "compute" or "exchange"."""
        if (self.loading_seconds or 0.0) > self.working_seconds:
            return "loading"
        exchanging = (self.exchange_seconds or 0.0) > self.compute_seconds
        return "exchange" if exchanging else "compute"


def forecast(work: Work, speed: Speed, layout: Layout) -> Forecast:
    """Apply the model.

    An update takes the longer of loading and of computing plus exchanging: images are loaded while
    the last ones are learned from. None of the exchange is hidden behind the backward pass, as
    DistributedDataParallel does with a part: a forecast on the safe side. An evaluation is forward
    passes at the training speed, divided among the processes, loaded by the same workers.
    """
    exchange = exchange_seconds(work, speed, layout)
    images = layout.processes * layout.images
    image_seconds = 0.0  # of loading one
    if speed.worker_images_per_second is not None:
        image_seconds = 1 / (layout.workers * speed.worker_images_per_second)
    update = max(speed.update_seconds + (exchange or 0.0), images * image_seconds)
    forward = speed.update_seconds / images / (1 + BACKWARD_COST)
    return Forecast(
        compute_seconds=speed.update_seconds,
        exchange_seconds=exchange,
        loading_seconds=images * image_seconds or None,
        training_seconds=work.updates * update,
        evaluation_seconds=work.evaluations * work.validation_images * max(forward, image_seconds),
        processes=layout.processes,
    )


def exchange_seconds(work: Work, speed: Speed, layout: Layout) -> float | None:
    """Seconds of an update's exchanges; None where there are several processes and no bandwidth.

    Gradients: one ring all-reduce, in which each process sends 2 (N - 1) / N times their bytes.
    Statistics of a shared group: one small exchange in the forward and one in the backward pass of
    every normalization.
    """
    if layout.processes == 1:
        return 0.0
    if speed.exchange_bytes_per_second is None:
        return None
    sent = ring_bytes(work.parameters * FLOAT_BYTES, layout.processes)
    seconds = speed.exchange_latency + sent / speed.exchange_bytes_per_second
    if layout.sharers > 1:
        seconds += 2 * work.normalizations * speed.exchange_latency
    return seconds


def ring_bytes(size: int, processes: int) -> float:
    """Bytes that each process sends when `size` bytes are summed over all of them in a ring."""
    return 2 * (processes - 1) / processes * size


def device_bytes(parameters: int, saved: int) -> int:
    """Bytes on a process's device: weights, gradients, momenta, and what backward needs again.

    Args:
        parameters: of the network.
        saved: bytes of activations kept for the backward pass, see `network.cost.saved_bytes`.
    """
    return parameters * FLOAT_BYTES * (2 + MOMENTA) + saved


def run_folder_bytes(parameters: int, updates: int, log_every: int) -> int:
    """Bytes on disk: three checkpoints, of which one has no momenta, and the record."""
    checkpoints = parameters * FLOAT_BYTES * (CHECKPOINTS * (1 + MOMENTA) + 1)
    return checkpoints + updates // log_every * RECORD_BYTES
