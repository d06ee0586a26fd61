"""The number format in which the network computes."""

import platform
import warnings
from collections.abc import Callable
from enum import Enum

import torch
from torch import Tensor

from bn_inception.errors import UserError


class Precision(Enum):
    """Number format of convolutions and matrix products.

    Weights, BN statistics, the classifiers, the loss and the optimizer always use float32.
    """

    fp32 = "fp32"
    tf32 = "tf32"
    """Rounds the inputs of float32 products to 10 bits of mantissa; on CUDA only."""
    bf16 = "bf16"
    """Autocast to bfloat16, fast on CUDA from Ampere on and on CPUs with AMX or AVX512_BF16."""


def set_precision(precision: Precision, device: torch.device, *, key: str) -> str | None:
    """Prepare this process for `precision` on `device`; call before the first forward pass.

    On CUDA, how float32 is multiplied is a setting of the process. Backward passes need it too, a
    compiled function is compiled again when it changes. It is therefore set once, here, and
    `computing` only does the autocast.

    Returns:
        A line that the user should see, or None. `key` is the option's name in it and in errors.
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
        # Some versions of torch warn that `fp32_precision` is newer. But once that one is set,
        # reading `allow_tf32`, as torch's own compiler does, is an error.
        warnings.simplefilter("ignore", UserWarning)
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
    return None


def computing(precision: Precision, device: torch.device) -> torch.autocast:
    """Compute in `precision` on `device` while entered; around forward passes only."""
    # No cache of converted weights: every weight is used once in a forward pass.
    return torch.autocast(
        device.type, torch.bfloat16, enabled=precision is Precision.bf16, cache_enabled=False
    )


def in_float32(layer: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Apply `layer` in float32, without autocast.

    This is for the classifiers, 0.05 % of the network's multiplications. Logits in bfloat16 have 8
    bits: several classes would have equal ones, and a logit of 10 would be off by up to 0.03.
    """
    device = inputs.device.type
    # "meta" has no autocast, and torch 2.11 cannot compile the query whether a device has one.
    if device == "meta" or not torch.is_autocast_enabled(device):
        return layer(inputs)
    with torch.autocast(device, enabled=False):
        return layer(inputs.float())


def has_tensor_cores(device: torch.device) -> bool:
    """Whether a CUDA device multiplies tf32 and bf16 in hardware (from Ampere on)."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _cpu_has_bfloat16() -> bool:
    if platform.machine() not in ("x86_64", "AMD64"):
        return True  # unknown, so no warning
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
