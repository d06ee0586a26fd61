"""The network of a run and what updates it."""

import warnings

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bn_inception.network import Inception, Processes, initialize, set_precision, set_statistics
from bn_inception.training.distributed import World
from bn_inception.training.local_batch import LocalBatch
from bn_inception.training.machine import Execution, choose_device, resolve, set_deterministic
from bn_inception.training.probe import Probe
from bn_inception.training.settings import OptimizerConfig, RunConfig

_INITIALIZATION, _STEP = 1, 2
"""Tags that keep the seeds of different uses apart."""


class Learner:
    """The network at the beginning of a run, its optimizer, and how updates are carried out.

    Attributes:
        execution: what `machine.*` comes to on `device`.
        remark: what the user should know about that, a line; None if nothing.
        network: on `device`, in training mode; its `state_dict` is what is saved.
        model: what training calls: `network`, or around it what averages the gradients.
    """

    def __init__(self, config: RunConfig, classes: int, local: LocalBatch, world: World) -> None:
        self._seed, self._image_size = config.run.seed, config.network.image_size
        self._local, self._world = local, world
        self.device = choose_device(config.machine.device, world)
        if config.machine.threads is not None:
            torch.set_num_threads(config.machine.threads)
        machine = resolve(config.machine, self.device, local)
        self.remark = set_precision(machine.precision, self.device, key="machine.precision")
        set_deterministic(machine.deterministic)
        self.execution = Execution(machine, self.device, world.size)
        network = Inception(config.network, classes)
        initialize(
            network, torch.Generator().manual_seed(derived_seed(self._seed, _INITIALIZATION))
        )
        self.network = network.to(self.device).to(memory_format=torch.channels_last).train()
        self.model: nn.Module = self.network
        set_statistics(self.network, groups=local.groups)
        self.optimizer = build_optimizer(self.network, config.optimizer)
        self.probe = Probe(
            config.probe,
            self.network,
            config.batch.images,
            compiled=machine.compile,
            silent=not world.first,
        )

    def distribute(self) -> None:
        """Join the other processes: shared BN statistics, averaged gradients.

        Called once the state is that of the run's beginning or of a checkpoint.
        """
        if self._world.size == 1:
            return
        if self._local.sharers > 1:
            group = self._world.subgroup(self._local.sharers)
            set_statistics(self.network, processes=Processes(group))
        with warnings.catch_warnings():
            # Newer torch has another name for broadcast_buffers, which older torch does not know.
            warnings.simplefilter("ignore", FutureWarning)
            self.model = DistributedDataParallel(
                self.execution.wrapped(self.network),
                device_ids=[self.device] if self.device.type == "cuda" else None,
                # Running statistics, which training does not read: each process has its own.
                broadcast_buffers=False,
            )
        # After its first backward pass the wrapper lays the gradients out anew, and the order in
        # which more than two processes' gradients are summed depends on the layout: a resumed run
        # must not take its first step in another one than the run it continues. Costs one step.
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        size = self._image_size
        images = torch.zeros(self._local.images, 3, size, size, device=self.device)
        with self.execution.computing():
            outputs = self.model(images.contiguous(memory_format=torch.channels_last))
        loss = torch.cat(list(outputs) if isinstance(outputs, tuple) else [outputs]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        self.network.load_state_dict(before)
        self.optimizer.zero_grad(set_to_none=True)

    def seed_dropout(self, step: int) -> None:
        """Seed from (seed, step, rank): a resumed run draws what it would have drawn."""
        seed = derived_seed(self._seed, _STEP, step, self._world.rank)
        # Not torch.manual_seed: it seeds all kinds of devices, at sixty times the cost.
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)


def derived_seed(seed: int, tag: int, step: int = 0, rank: int = 0) -> int:
    """Mix the run's seed, a use, a step and a process into one seed: no history is in it."""
    words = [seed, tag, step, rank] if rank else [seed, tag, step]
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return int(state[0] >> 1)


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.SGD:
    """SGD in two groups: weight decay on weights of convolutions and linear layers, none on others.

    The type of the module that owns a parameter decides, never its name. One kernel updates all
    parameters, and honours `found_inf` (see step.py).
    """
    decayed = [
        module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    chosen = {id(parameter) for parameter in decayed}
    others = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
    optimizer = torch.optim.SGD(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        momentum=config.momentum,
        fused=True,
    )
    start_momenta(optimizer)
    return optimizer


def start_momenta(optimizer: torch.optim.SGD) -> None:
    """Give every parameter a momentum that lies in memory as it does: its own, or zero.

    Torch would make it in the first update; but where the fused kernel skips that one, because the
    loss is not finite, the memory stays as it was found, and the second update adds it. And that
    kernel walks through memory: a momentum saved in another format would go to other weights.
    """
    for group in optimizer.param_groups:
        if group["momentum"]:
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                own = torch.zeros_like(parameter)
                if state.get("momentum_buffer") is not None:
                    own.copy_(state["momentum_buffer"])
                state["momentum_buffer"] = own
