"""Tables, figures and verdicts of runs. Reads run folders only; never trains or imports torch."""

from bn_inception.report.claims import judge
from bn_inception.report.comparison import compare
from bn_inception.report.evaluations import Evaluation, StabilityEdge, read_saved
from bn_inception.report.figures import figure2
from bn_inception.report.page import write_report
from bn_inception.report.runs import Run, read_run, read_runs
from bn_inception.report.tables import as_text, figure4
from bn_inception.report.verdicts import claims_text, required_numbers, write_claims

__all__ = [
    "Evaluation",
    "Run",
    "StabilityEdge",
    "as_text",
    "claims_text",
    "compare",
    "figure2",
    "figure4",
    "judge",
    "read_run",
    "read_runs",
    "read_saved",
    "required_numbers",
    "write_claims",
    "write_report",
]
