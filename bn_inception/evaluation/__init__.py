"""Exact evaluation of a network on held-out images."""

from bn_inception.evaluation.evaluate import EvaluationResult, evaluate

__all__ = ["EvaluationResult", "evaluate"]
