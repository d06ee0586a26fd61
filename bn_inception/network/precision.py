"""In which number format the network computes."""

from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum

import torch


class Precision(Enum):
    """Number format of convolutions and matrix products.

    Weights, BN statistics, the loss and the optimizer stay in float32 in all of them.

    `fp32` is exact float32; `tf32` rounds their inputs to 10 bits of mantissa on CUDA, and is fp32
    elsewhere; `bf16` is autocast to bfloat16, fast where the processor has instructions for it
    (CUDA from Ampere on, AMX or AVX512_BF16 on the CPU).
    """

    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


@contextmanager
def computing(precision: Precision, device: torch.device) -> Generator[None, None, None]:
    """Compute in `precision` on `device` while entered; around forward passes only."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision is Precision.tf32
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.bf16):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
