"""Tables, figures and verdicts of runs. Reads run folders only; never trains or imports torch."""

from bn_inception.report.claims import Verdict, judge
from bn_inception.report.comparison import Figure3, compare, evaluated_models
from bn_inception.report.evaluations import Evaluation, StabilityEdge, read_saved
from bn_inception.report.figures import figure2, inputs_of_a_layer
from bn_inception.report.measures import Decision
from bn_inception.report.page import report_page
from bn_inception.report.runs import Run, read_run, read_runs
from bn_inception.report.tables import as_json, as_markdown, as_text, figure4
from bn_inception.report.verdicts import (
    claims_json,
    claims_markdown,
    claims_text,
    required_numbers,
)
from bn_inception.report.write import write_claims, write_report

__all__ = [
    "Decision",
    "Evaluation",
    "Figure3",
    "Run",
    "StabilityEdge",
    "Verdict",
    "as_json",
    "as_markdown",
    "as_text",
    "claims_json",
    "claims_markdown",
    "claims_text",
    "compare",
    "evaluated_models",
    "figure2",
    "figure4",
    "inputs_of_a_layer",
    "judge",
    "read_run",
    "read_runs",
    "read_saved",
    "report_page",
    "required_numbers",
    "write_claims",
    "write_report",
]
