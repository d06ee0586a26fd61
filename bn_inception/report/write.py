"""A comparison as files."""

from collections.abc import Sequence
from pathlib import Path

from bn_inception.record.atomic import write_text
from bn_inception.report.claims import Verdict
from bn_inception.report.comparison import Comparison
from bn_inception.report.evaluations import Evaluation
from bn_inception.report.figures import figure2
from bn_inception.report.folders import make_folder
from bn_inception.report.page import report_page
from bn_inception.report.runs import Run
from bn_inception.report.seeds import SeedGroup
from bn_inception.report.tables import as_json, as_markdown, figure4, named_evaluations, seeds


def write_report(
    comparison: Comparison,
    runs: Sequence[Run],
    folder: str | Path,
    *,
    groups: Sequence[SeedGroup] = (),
    ensembles: Sequence[Evaluation] = (),
    verdicts: Sequence[Verdict] = (),
) -> list[Path]:
    """Write `report.html`, `comparison.md`, `comparison.json`, `figure2.png` and `figure2.svg`.

    Args:
        comparison: of `runs`.
        runs: those compared.
        folder: created if missing; files of the same names are replaced.
        groups: of seeds, from `group_seeds`.
        ensembles: saved evaluations of several networks.
        verdicts: of `judge`, for the page.

    Returns:
        The paths written.

    Raises:
        UserError: the folder cannot be created or written.
    """
    folder = make_folder(folder)
    evaluations = named_evaluations(runs, ensembles)
    by_seed, errors = seeds(groups, comparison.target), figure4(evaluations)
    tables = [table for table in (by_seed, errors) if table is not None]
    page, markdown = folder / "report.html", folder / "comparison.md"
    data = folder / "comparison.json"
    html = report_page(
        comparison,
        runs,
        verdicts=verdicts,
        evaluations=evaluations,
        tables=[] if by_seed is None else [by_seed],
    )
    write_text(page, html)
    write_text(markdown, as_markdown(comparison, *tables))
    write_text(data, as_json(comparison, groups, evaluations))
    return [page, markdown, data, *figure2(runs, folder, comparison)]
