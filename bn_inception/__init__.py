"""A reproduction of Batch Normalization (Ioffe and Szegedy, 2015)."""

from typing import TYPE_CHECKING, Any

from bn_inception.errors import UserError

if TYPE_CHECKING:
    from bn_inception.config import build_network
    from bn_inception.evaluation.classifier import load

__all__ = ["UserError", "build_network", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Late: the command line shows its help without waiting seconds for torch.
    if name == "build_network":
        from bn_inception.config import build_network

        return build_network
    if name == "load":
        from bn_inception.evaluation.classifier import load

        return load
    raise AttributeError(f"module 'bn_inception' has no attribute {name!r}")
