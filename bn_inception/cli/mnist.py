"""`bn-inception mnist`: BN section 4.1 and Figure 1 at their own size."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bn_inception.cli.command import Call, command
from bn_inception.errors import UserError
from bn_inception.files import make_folder, write_json
from bn_inception.mnist import NETWORKS, Evaluation, MnistSettings, figure1, read_digits, train
from bn_inception.record import describe


@dataclass
class OfEach:
    """A value of each network."""

    plain: float
    bn: float


@dataclass
class MnistConfig:
    """The keys of `configs/mnist.yaml`."""

    root: str
    output: str
    seeds: list[int]
    steps: int
    evaluate_every: int
    learning_rate: OfEach
    deviation: OfEach
    threads: int

    def __post_init__(self) -> None:
        for name in ("steps", "evaluate_every", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)}; give 1 or more")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds: {self.seeds}; give different ones, 0 or more, as [0,1,2]")
        for name in ("learning_rate", "deviation"):
            for network, value in vars(getattr(self, name)).items():
                if not 0 < value < float("inf"):
                    raise UserError(f"{name}.{network}: {value}; give a number above 0")


@command("mnist", MnistConfig)
def mnist(call: Call[MnistConfig]) -> None:
    """Train both networks, write Figure 1 and its numbers."""
    config = call.config
    digits = read_digits(Path(config.root).expanduser())
    folder = Path(config.output).expanduser()
    make_folder(folder, "output")
    torch.set_num_threads(config.threads)
    curves = []
    for seed in config.seeds:
        for network in NETWORKS:
            settings = MnistSettings(
                learning_rate=getattr(config.learning_rate, network),
                deviation=getattr(config.deviation, network),
                seed=seed,
                steps=config.steps,
                evaluate_every=config.evaluate_every,
            )
            name = f"{network}, seed {seed}"

            def show(evaluation: Evaluation, name: str = name) -> None:
                if evaluation.step % (10 * config.evaluate_every) == 0:
                    print(
                        f"{name}  step {evaluation.step:,}/{config.steps:,}  "
                        f"test accuracy {evaluation.test_accuracy:.2%}",
                        flush=True,
                    )

            curves.append(train(network, settings, digits, show))
    rows = [asdict(curve) for curve in curves]
    numbers = folder / "figure1.json"
    write_json(numbers, {"kind": "mnist", "curves": rows, "environment": describe("mnist")})
    print(*figure1(curves, folder), numbers, sep="\n")
