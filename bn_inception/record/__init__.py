"""The run folder: metrics, milestones, summary, environment, and their TensorBoard mirror.

`metrics.jsonl` and `summary.json` are the record; TensorBoard shows the same numbers. Nothing here
imports torch, and TensorBoard's own modules are imported only when a mirror opens.
"""

from bn_inception.record.environment import describe, read_environment, write_environment
from bn_inception.record.metrics import (
    MetricsLog,
    ProbeRecord,
    TrainRecord,
    ValidationRecord,
    read_metrics,
)
from bn_inception.record.predictions import (
    Predictions,
    read_predictions,
    write_predictions,
)
from bn_inception.record.recorder import Recorder
from bn_inception.record.run_folder import RunFolder
from bn_inception.record.summary import (
    Best,
    Divergence,
    Milestone,
    RunStatus,
    Summary,
    milestones,
    read_summary,
)

__all__ = [
    "Best",
    "Divergence",
    "MetricsLog",
    "Milestone",
    "Predictions",
    "ProbeRecord",
    "Recorder",
    "RunFolder",
    "RunStatus",
    "Summary",
    "TrainRecord",
    "ValidationRecord",
    "describe",
    "milestones",
    "read_environment",
    "read_metrics",
    "read_predictions",
    "read_summary",
    "write_environment",
    "write_predictions",
]
