"""What `machine.*` comes to on the device that is there."""

import os
import shutil
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bn_inception.errors import UserError
from bn_inception.network import Precision
from bn_inception.network.precision import has_tensor_cores
from bn_inception.training.distributed import ALONE, World
from bn_inception.training.local_batch import LocalBatch
from bn_inception.training.settings import Device, MachineConfig


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

    On the CPU the default is what the stored loss curves were made with, bit for bit: fp32, nothing
    compiled. On CUDA it is the fastest.
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
        precision = Precision.bf16 if fast else Precision.fp32
    compiled = (cuda and not shared) if config.compile is None else config.compile
    return Machine(precision, compiled, config.deterministic)


def set_deterministic(on: bool) -> None:
    """Ask torch for kernels that give the same bits every time; before the first CUDA call.

    For an operation that has none on CUDA torch warns and goes on. On the CPU nothing changes.
    """
    if on:
        # cuBLAS reads it when it starts; torch's documentation names the value.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(on, warn_only=True)


def has_cpp_compiler() -> bool:
    """Whether torch.compile could compile for the CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))
