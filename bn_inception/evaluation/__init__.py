"""Exact evaluation of a network on held-out images."""

from bn_inception.evaluation.evaluate import Counts, evaluate

__all__ = ["Counts", "evaluate"]
