"""A comparison as files."""

from collections.abc import Sequence
from pathlib import Path

from bn_inception.errors import UserError
from bn_inception.record.atomic import write_text
from bn_inception.report.claims import Verdict
from bn_inception.report.comparison import Figure3
from bn_inception.report.evaluations import Evaluation
from bn_inception.report.figures import figure2
from bn_inception.report.page import report_page
from bn_inception.report.runs import Run
from bn_inception.report.tables import as_json, as_markdown, figure4, named_evaluations
from bn_inception.report.verdicts import claims_json, claims_markdown


def write_report(
    comparison: Figure3,
    runs: Sequence[Run],
    folder: str | Path,
    *,
    ensembles: Sequence[Evaluation] = (),
    verdicts: Sequence[Verdict] = (),
) -> list[Path]:
    """Write `report.html`, `comparison.md`, `comparison.json`, `figure2.png` and `figure2.svg`.

    Args:
        comparison: of `runs`.
        runs: those compared.
        folder: created if missing; files of the same names are replaced.
        ensembles: saved evaluations of several networks.
        verdicts: of `judge`, for the page.

    Returns:
        The paths written.

    Raises:
        UserError: the folder cannot be created or written.
    """
    folder = _make_folder(folder)
    evaluations = named_evaluations(runs, ensembles)
    errors = figure4(evaluations)
    page, markdown = folder / "report.html", folder / "comparison.md"
    data = folder / "comparison.json"
    write_text(page, report_page(comparison, runs, verdicts=verdicts, evaluations=evaluations))
    write_text(markdown, as_markdown(comparison, *([] if errors is None else [errors])))
    write_text(data, as_json(comparison, evaluations))
    return [page, markdown, data, *figure2(runs, folder, comparison)]


def write_claims(verdicts: Sequence[Verdict], folder: str | Path) -> list[Path]:
    """Write `claims.md` and `claims.json`.

    Args:
        verdicts: of `judge`.
        folder: created if missing; files of the same names are replaced.

    Returns:
        The paths written.

    Raises:
        UserError: the folder cannot be created or written.
    """
    folder = _make_folder(folder)
    markdown, data = folder / "claims.md", folder / "claims.json"
    write_text(markdown, claims_markdown(verdicts, folder))
    write_text(data, claims_json(verdicts))
    return [markdown, data]


def _make_folder(folder: str | Path) -> Path:
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"output: {folder} cannot be created ({error.strerror}); choose another folder"
        ) from error
    return folder
