"""Tables and figures of runs. Reads run folders only; never trains, never imports torch."""

from bn_inception.report.comparison import Comparison, PaperRow, Row, compare
from bn_inception.report.figures import figure2
from bn_inception.report.runs import Run, read_run, read_runs
from bn_inception.report.tables import as_json, as_markdown, as_text
from bn_inception.report.write import write_report

__all__ = [
    "Comparison",
    "PaperRow",
    "Row",
    "Run",
    "as_json",
    "as_markdown",
    "as_text",
    "compare",
    "figure2",
    "read_run",
    "read_runs",
    "write_report",
]
