"""How long a run takes: a model in few lines. Nothing is measured here."""

from dataclasses import dataclass

FLOAT_BYTES = 4
BACKWARD_COST = 2  # forwards that a backward pass costs: one product each for inputs and weights
RECORD_BYTES = 310  # that a log step adds to metrics.jsonl (170) and to TensorBoard's file (140)


@dataclass(frozen=True)
class Forecast:
    """What a run has to do, how fast and on how much; what follows. None: not known, left out.

    Attributes:
        updates: steps of the run.
        evaluations: how often the network is judged.
        evaluation_images: forward passes of one: held-out images, and the training images of the
            population statistics.
        parameters: of the network while it trains, the auxiliary head included.
        normalizations: layers with Batch Normalization.
        processes: one a GPU (or one in all, on a CPU).
        images: of an update that a process holds.
        sharers: processes that hold one group of Batch Normalization together.
        workers: that read images, over all processes.
        compute_seconds: forward, backward and update of one process.
        worker_images_per_second: decoded and cut by one worker on one core.
        exchange_bytes_per_second: of a process's link, in one direction.
        exchange_latency: seconds of the smallest exchange between all processes.
    """

    updates: int
    evaluations: int
    evaluation_images: int
    parameters: int
    normalizations: int
    processes: int
    images: int
    sharers: int
    workers: int
    compute_seconds: float
    worker_images_per_second: float | None = None
    exchange_bytes_per_second: float | None = None
    exchange_latency: float = 0.0

    @property
    def ring_bytes(self) -> float:
        """Bytes that each process sends when gradients are summed over all of them in a ring."""
        return ring_bytes(self.parameters, self.processes)

    @property
    def exchange_seconds(self) -> float | None:
        """Seconds of an update's exchanges: gradients, and statistics where a group is shared.

        Those are one small exchange in the forward and one in the backward pass of every
        normalization.
        """
        if self.processes == 1:
            return 0.0
        if self.exchange_bytes_per_second is None:
            return None
        small = 1 + (2 * self.normalizations if self.sharers > 1 else 0)
        return small * self.exchange_latency + self.ring_bytes / self.exchange_bytes_per_second

    @property
    def loading_seconds(self) -> float | None:
        """Seconds in which the workers make an update's images."""
        if self.worker_images_per_second is None:
            return None
        return self.processes * self.images / (self.workers * self.worker_images_per_second)

    @property
    def working_seconds(self) -> float:
        """Seconds of an update whose images are there.

        None of the exchange is hidden behind the backward pass, as DistributedDataParallel does
        with a part: a forecast on the safe side.
        """
        return self.compute_seconds + (self.exchange_seconds or 0.0)

    @property
    def training_seconds(self) -> float:
        """Seconds of all updates: images are loaded while the last ones are learned from."""
        return self.updates * max(self.working_seconds, self.loading_seconds or 0.0)

    @property
    def hours(self) -> float:
        """From the first update to the last evaluation.

        An evaluation is forward passes at the training speed, divided among the processes, loaded
        by the same workers.
        """
        forward = self.compute_seconds / (1 + BACKWARD_COST)
        update_images = self.processes * self.images
        image = max(forward, self.loading_seconds or 0.0) / update_images
        evaluating = self.evaluations * self.evaluation_images * image
        return (self.training_seconds + evaluating) / 3600

    @property
    def bound(self) -> str:
        """What the rest waits for: "loading", "compute" or "exchange"."""
        if (self.loading_seconds or 0.0) > self.working_seconds:
            return "loading"
        exchanging = (self.exchange_seconds or 0.0) > self.compute_seconds
        return "exchange" if exchanging else "compute"

    def folder_bytes(self, log_every: int) -> int:
        """Bytes of last.pt and previous.pt with momenta, best.pt without, and the record."""
        return 5 * self.parameters * FLOAT_BYTES + self.updates // log_every * RECORD_BYTES


def ring_bytes(parameters: int, processes: int) -> float:
    """Bytes that each process sends when so many float32 are summed over all of them in a ring."""
    return 2 * (processes - 1) / processes * parameters * FLOAT_BYTES
