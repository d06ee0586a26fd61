"""A comparison as files."""

from collections.abc import Sequence
from pathlib import Path

from bn_inception.errors import UserError
from bn_inception.record.atomic import write_text
from bn_inception.report.comparison import Comparison
from bn_inception.report.figures import figure2
from bn_inception.report.runs import Run
from bn_inception.report.tables import as_json, as_markdown


def write_report(comparison: Comparison, runs: Sequence[Run], folder: str | Path) -> list[Path]:
    """Write `comparison.md`, `comparison.json`, `figure2.png` and `figure2.svg`.

    Args:
        comparison: of `runs`.
        runs: those compared.
        folder: created if missing; files of the same names are replaced.

    Returns:
        The paths written.

    Raises:
        UserError: the folder cannot be created or written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"output: {folder} cannot be created ({error.strerror}); choose another folder"
        ) from error
    markdown, data = folder / "comparison.md", folder / "comparison.json"
    write_text(markdown, as_markdown(comparison))
    write_text(data, as_json(comparison))
    return [markdown, data, *figure2(runs, folder, comparison)]
