"""A comparison as files."""

from collections.abc import Sequence
from pathlib import Path

from bn_inception.files import make_folder, write_bytes, write_text
from bn_inception.report.claims import Verdict
from bn_inception.report.comparison import Figure3, evaluated_models
from bn_inception.report.evaluations import Evaluation
from bn_inception.report.figures import figure2, inputs_of_a_layer
from bn_inception.report.page import report_page
from bn_inception.report.runs import Run
from bn_inception.report.tables import as_json, as_markdown, figure4
from bn_inception.report.verdicts import claims_json, claims_markdown


def write_report(
    comparison: Figure3,
    runs: Sequence[Run],
    folder: str | Path,
    *,
    ensembles: Sequence[Evaluation] = (),
    verdicts: Sequence[Verdict] = (),
    axis: str = "linear",
) -> list[Path]:
    """Write `report.html`, `comparison.md`, `comparison.json`, and the figures as PNG and SVG.

    Args:
        comparison: of `runs`.
        runs: those compared.
        folder: created if missing; files of the same names are replaced.
        ensembles: saved evaluations of several networks.
        verdicts: of `judge`, for the page.
        axis: of Figure 2's steps, `linear` or `log`.

    Returns:
        The paths written.

    Raises:
        UserError: the folder cannot be created or written.
    """
    folder = _make_folder(folder)
    models = evaluated_models(comparison, ensembles)
    errors, drawings = figure4(models), figure2(comparison, axis)
    if (inputs := inputs_of_a_layer(comparison)) is not None:
        drawings.append(inputs)
    page = report_page(comparison, runs, drawings, verdicts=verdicts, models=models)
    files = {
        "report.html": page.encode(),
        "comparison.md": as_markdown(comparison, *([errors] if errors else [])).encode(),
        "comparison.json": as_json(comparison, ensembles).encode(),
    }
    for drawing in drawings:
        files |= drawing.files
    for name, content in files.items():
        write_bytes(folder / name, content)
    return [folder / name for name in files]


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
    made = Path(folder)
    make_folder(made, "output")
    return made
