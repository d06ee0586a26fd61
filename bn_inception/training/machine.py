"""What `machine.*` comes to on the device that is there, and the fast step put together of it."""

import os
import shutil
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bn_inception.data import to_input
from bn_inception.errors import UserError
from bn_inception.network import Precision, computing
from bn_inception.network.precision import has_tensor_cores
from bn_inception.training.distributed import ALONE, World
from bn_inception.training.local_batch import LocalBatch
from bn_inception.training.settings import Device, MachineConfig
from bn_inception.training.step import Losses, losses

BACKEND = "inductor"
"""Of torch.compile."""


def choose_device(device: Device, world: World = ALONE) -> torch.device:
    """Turn `machine.device` into a device; each of several processes has a GPU of its own."""
    if device is Device.cuda and not torch.cuda.is_available():
        raise UserError("machine.device: cuda, but torch sees no CUDA device; use auto or cpu")
    if device is Device.auto:
        device = Device.cuda if torch.cuda.is_available() else Device.cpu
    if device is Device.cuda and world.size > 1:
        if world.local_size > torch.cuda.device_count():
            raise UserError(
                f"machine.device: {world.local_size} processes on a machine with "
                f"{torch.cuda.device_count()} CUDA devices; start one for each"
            )
        torch.cuda.set_device(world.local_rank)
        return torch.device("cuda", world.local_rank)
    return torch.device(device.value)


@dataclass(frozen=True)
class Machine:
    """How a run's updates are carried out: see `MachineConfig`, with nothing left open."""

    precision: Precision = Precision.fp32
    compile: bool = False
    deterministic: bool = False

    def described(self, device: torch.device) -> dict[str, Any]:
        """JSON-able, for the run's record."""
        return {
            **asdict(self),
            "precision": self.precision.value,
            "device": device.type,
            "threads": torch.get_num_threads(),
        }


def resolve(config: MachineConfig, device: torch.device, local: LocalBatch) -> Machine:
    """Choose what is not chosen, and refuse what this device or these processes cannot have.

    On the CPU the default is what the stored loss curves were made with, bit for bit: fp32. On CUDA
    it is the format that was fastest at the paper's 32 images, measured once (docs/step.md): tf32.
    """
    cuda, shared = device.type == "cuda", local.sharers > 1
    if config.compile and shared:
        raise UserError(
            f"machine.compile: true, but {local.sharers} processes share BN statistics, an "
            "exchange inside the network that is not compiled; choose machine.compile=false, "
            "batch.synchronized=false or fewer processes"
        )
    if config.compile and not cuda and not has_cpp_compiler():
        raise UserError(
            "machine.compile: true, but there is no C++ compiler (CXX, g++ or clang++), which "
            "torch.compile needs on the CPU; install one, or choose machine.compile=false"
        )
    precision = config.precision
    if precision is None:
        fast = cuda and has_tensor_cores(device)
        precision = Precision.tf32 if fast else Precision.fp32
    return Machine(precision, bool(config.compile), config.deterministic)


def has_cpp_compiler() -> bool:
    """Whether torch.compile could compile for the CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def set_deterministic(on: bool) -> None:
    """Ask torch for kernels that give the same bits every time; before the first CUDA call.

    For an operation that has none on CUDA torch warns and goes on. On the CPU nothing changes.
    """
    if on:
        # cuBLAS reads it when it starts; torch's documentation names the value.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(on, warn_only=True)


class Execution:
    """How one process of a run makes its updates.

    One process has forward pass and loss compiled as one function; of several, each compiles its
    network, inside the wrapper that averages gradients, as that expects.
    """

    def __init__(self, machine: Machine, device: torch.device, processes: int = 1) -> None:
        self.machine, self.device = machine, device
        alone = processes == 1
        self._to_input = _compiled(to_input, machine.compile)
        self._losses = _compiled(self._eager, machine.compile and alone)
        self._compile_network = machine.compile and not alone

    def wrapped(self, network: nn.Module) -> nn.Module:
        """What the wrapper of several processes is put around; parameters are `network`'s."""
        wrapped: nn.Module = _compiled(network, self._compile_network)
        return wrapped

    def to_input(self, images: Tensor, factors: Tensor) -> Tensor:
        """`data.to_input`, in channels_last memory."""
        inputs: Tensor = self._to_input(images, factors)
        return inputs.contiguous(memory_format=torch.channels_last)

    def forward(self, network: nn.Module, images: Tensor, labels: Tensor) -> Losses:
        """`step.losses` in the machine's precision, compiled or not."""
        result: Losses = self._losses(network, images, labels)
        return result

    def computing(self) -> torch.autocast:
        """The machine's precision, around a forward pass."""
        return computing(self.machine.precision, self.device)

    def _eager(self, network: nn.Module, images: Tensor, labels: Tensor) -> Losses:
        with self.computing():
            return losses(network, images, labels)


def _compiled(function: Any, on: bool) -> Any:
    if not on:
        return function
    # One graph, or an error: a part that silently stays outside would be slow and unnoticed. One
    # shape: training batches are all of one size, and evaluation calls the network itself.
    return torch.compile(function, backend=BACKEND, fullgraph=True, dynamic=False)
