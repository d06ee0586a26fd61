"""A reproduction of Batch Normalization (Ioffe and Szegedy, 2015)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bn_inception.errors import UserError

if TYPE_CHECKING:
    from bn_inception.config.build import build_network
    from bn_inception.evaluation.classifier import load

__all__ = ["UserError", "build_network", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Late: the command line shows its help without waiting seconds for torch.
    late = {"build_network": "config.build", "load": "evaluation.classifier"}
    if name in late:
        return getattr(import_module(f"bn_inception.{late[name]}"), name)
    raise AttributeError(f"module 'bn_inception' has no attribute {name!r}")
