"""`bn-inception mnist`: BN section 4.1 and Figure 1 at their own size."""

from dataclasses import dataclass

import torch

from bn_inception.cli.command import command
from bn_inception.errors import UserError, require_at_least, require_positive
from bn_inception.files import expanded, make_folder, plain, write_json
from bn_inception.mnist import NETWORKS, Evaluation, MnistSettings, figure1, read_digits, train
from bn_inception.record.environment import describe


@dataclass
class OfEach:
    """A value of each network."""

    plain: float
    bn: float


@command("mnist")
def mnist(
    root: str,
    output: str,
    seeds: list[int],
    steps: int,
    evaluate_every: int,
    learning_rate: OfEach,
    deviation: OfEach,
    threads: int,
) -> None:
    """Train both networks, write Figure 1 and its numbers."""
    for key, value in (("steps", steps), ("evaluate_every", evaluate_every), ("threads", threads)):
        require_at_least(key, value, 1)
    for key, values in (("learning_rate", learning_rate), ("deviation", deviation)):
        for network in NETWORKS:
            require_positive(f"{key}.{network}", getattr(values, network), "give a number above 0")
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: {seeds}; give different ones, 0 or more, as [0,1,2]")
    digits = read_digits(expanded(root))
    folder = expanded(output)
    make_folder(folder, "output")
    torch.set_num_threads(threads)
    curves = []
    for seed in seeds:
        for network in NETWORKS:
            settings = MnistSettings(
                learning_rate=getattr(learning_rate, network),
                deviation=getattr(deviation, network),
                seed=seed,
                steps=steps,
                evaluate_every=evaluate_every,
            )

            def show(evaluation: Evaluation, name: str = f"{network}, seed {seed}") -> None:
                if evaluation.step % (10 * evaluate_every) == 0:
                    done = f"step {evaluation.step:,}/{steps:,}"
                    accuracy = f"test accuracy {evaluation.test_accuracy:.2%}"
                    print(name, done, accuracy, sep="  ", flush=True)

            curves.append(train(network, settings, digits, show))
    numbers = folder / "figure1.json"
    found = {"kind": "mnist", "curves": curves, "environment": describe("mnist")}
    write_json(numbers, plain(found))
    print(*figure1(curves, folder), numbers, sep="\n")
