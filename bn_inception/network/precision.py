"""In which number format the network computes."""

import platform
import warnings
from collections.abc import Callable
from enum import Enum

import torch
from torch import Tensor

from bn_inception.errors import UserError

_TENSOR_CORES_FOR_FLOAT32 = (8, 0)
"""Compute capability from which on CUDA has tf32, and bf16 in hardware (Ampere)."""


class Precision(Enum):
    """Number format of convolutions and matrix products.

    Weights, BN statistics, the classifiers, the loss and the optimizer are in float32 in all of
    them.

    `fp32` is exact float32; `tf32` rounds the inputs of float32 products to 10 bits of mantissa, on
    CUDA alone; `bf16` is autocast to bfloat16, fast where the processor has instructions for it
    (CUDA from Ampere on, AMX or AVX512_BF16 on the CPU).
    """

    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


def set_precision(precision: Precision, device: torch.device, *, key: str) -> str | None:
    """Prepare this process for `precision` on `device`; before the first forward pass.

    How float32 is multiplied on CUDA is a setting of the process, not of a call: the backward
    passes need it as well, a compiled function is compiled anew where it changes, and a captured
    graph keeps what it was captured with. It is therefore set here, once, and `computing` has only
    the autocast.

    Args:
        precision: wanted.
        device: of the network.
        key: the option that asked for it, named in errors.

    Returns:
        What the user should know, a line; None if nothing.

    Raises:
        UserError: the device does not have it.
    """
    if device.type != "cuda":
        if precision is Precision.tf32:
            raise UserError(f"{key}: tf32 is a format of CUDA; on the CPU choose fp32 or bf16")
        if precision is Precision.bf16 and not _cpu_has_bfloat16():
            return (
                f"{key}: this CPU has no instructions for bf16 (AVX512_BF16, AMX), which is slower "
                "than fp32 then"
            )
        return None
    if precision is not Precision.fp32 and not has_tensor_cores(device):
        raise UserError(
            f"{key}: {precision.value} needs a GPU of compute capability 8.0 or more (Ampere), and "
            f"{torch.cuda.get_device_name(device)} is older; choose fp32"
        )
    tf32 = precision is Precision.tf32
    with warnings.catch_warnings():
        # `fp32_precision` is the newer way to say it, and some versions of torch warn of this one.
        # But where it is used, reading `allow_tf32`, as torch's own compiler does, is an error.
        warnings.simplefilter("ignore", UserWarning)
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
    return None


def computing(precision: Precision, device: torch.device) -> torch.autocast:
    """Compute in `precision` on `device` while entered; around forward passes only.

    The backward pass takes the formats of the forward pass by itself.
    """
    # No cache of converted weights: every weight is used once in a forward pass, and what lies in
    # the cache must not outlive the capture of a graph.
    return torch.autocast(
        device.type, torch.bfloat16, enabled=precision is Precision.bf16, cache_enabled=False
    )


def in_float32(layer: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Apply `layer` without autocast, where there is one, to inputs made float32.

    For the classifiers: logits in bfloat16 have 8 bits, so that those of several classes are equal,
    and a logit of 10 is off by up to 0.03. At 0.05 % of the network's products this costs nothing.
    """
    device = inputs.device.type
    # "meta" has no autocast to ask for; whether a device has one cannot be asked in a graph that
    # torch 2.11 compiles.
    if device == "meta" or not torch.is_autocast_enabled(device):
        return layer(inputs)
    with torch.autocast(device, enabled=False):
        return layer(inputs.float())


def has_tensor_cores(device: torch.device) -> bool:
    """Whether a CUDA device multiplies tf32 and bf16 in hardware."""
    return torch.cuda.get_device_capability(device) >= _TENSOR_CORES_FOR_FLOAT32


def _cpu_has_bfloat16() -> bool:
    if platform.machine() not in ("x86_64", "AMD64"):
        return True  # not known, hence nothing said
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
