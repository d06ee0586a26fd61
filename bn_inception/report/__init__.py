"""Tables, figures and verdicts of runs. Reads run folders only; never trains or imports torch."""

from bn_inception.report.claims import Verdict, judge
from bn_inception.report.comparison import Comparison, PaperRow, Row, compare
from bn_inception.report.evaluations import Evaluation, read_evaluation
from bn_inception.report.figures import figure2
from bn_inception.report.findings import Evidence, Outcome
from bn_inception.report.page import report_page
from bn_inception.report.runs import Run, read_run, read_runs
from bn_inception.report.seeds import (
    Difference,
    SeedGroup,
    Spread,
    accuracy_difference,
    group_seeds,
)
from bn_inception.report.tables import (
    Table,
    as_json,
    as_markdown,
    as_text,
    figure4,
    named_evaluations,
    seeds,
)
from bn_inception.report.verdicts import (
    claims_json,
    claims_markdown,
    claims_text,
    required_numbers,
    write_claims,
)
from bn_inception.report.write import write_report

__all__ = [
    "Comparison",
    "Difference",
    "Evaluation",
    "Evidence",
    "Outcome",
    "PaperRow",
    "Row",
    "Run",
    "SeedGroup",
    "Spread",
    "Table",
    "Verdict",
    "accuracy_difference",
    "as_json",
    "as_markdown",
    "as_text",
    "claims_json",
    "claims_markdown",
    "claims_text",
    "compare",
    "figure2",
    "figure4",
    "group_seeds",
    "judge",
    "named_evaluations",
    "read_evaluation",
    "read_run",
    "read_runs",
    "report_page",
    "required_numbers",
    "seeds",
    "write_claims",
    "write_report",
]
