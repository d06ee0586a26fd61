"""Verdicts for the terminal, as Markdown and as JSON."""

import json
import os
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bn_inception.errors import UserError
from bn_inception.record.atomic import write_text
from bn_inception.record.environment import command_line
from bn_inception.report.claims import Verdict
from bn_inception.report.findings import Evidence, Outcome
from bn_inception.report.folders import make_folder
from bn_inception.report.tables import Table

_WIDTH = 100


def claims_table(verdicts: Sequence[Verdict]) -> Table:
    """One row a statement: number, title, verdict, what was measured, the paper's value."""
    return Table(
        "",
        count_line(verdicts),
        ("", "statement", "verdict", "paper"),
        [
            (str(v.statement.number), v.statement.title, v.outcome.value, v.statement.paper)
            for v in verdicts
        ],
        (0,),
    )


def count_line(verdicts: Sequence[Verdict]) -> str:
    """How many hold, do not hold, and are not tested."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    return (
        f"{len(verdicts)} statements of the paper: {counts[Outcome.holds]} hold, "
        f"{counts[Outcome.does_not_hold]} not, {counts[Outcome.not_tested]} not tested."
    )


def claims_text(verdicts: Sequence[Verdict]) -> str:
    """The table, then each statement with what was measured, the evidence and the commands."""
    blocks = [claims_table(verdicts).as_text()]
    for verdict in verdicts:
        lines = [_wrapped(f"{verdict.statement.number}. ", verdict.statement.claim)]
        lines.append(_wrapped(f"   {verdict.outcome.value}: ", verdict.reason))
        lines += [
            _wrapped(f"   {entry.name}: ", f"{entry.says} ({entry.path})")
            for entry in verdict.evidence
        ]
        # Never wrapped: to be copied.
        lines += [f"   $ {command}" for command in verdict.commands]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _wrapped(begin: str, text: str) -> str:
    return textwrap.fill(
        begin + text,
        _WIDTH,
        subsequent_indent="   " if begin[0].isdigit() else "     ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def claims_markdown(verdicts: Sequence[Verdict], folder: str | Path = ".") -> str:
    """The same as Markdown, with how each is measured and its criterion.

    Args:
        verdicts: of `judge`.
        folder: where the text will lie, for links to the evidence. Absolute paths are not linked
            and are shortened to their last part, so that the text can be shared.
    """
    lines = ["# The paper's statements", "", claims_table(verdicts).as_markdown(), ""]
    for verdict in verdicts:
        statement = verdict.statement
        lines += [
            f"## {statement.number}. {statement.title}: {verdict.outcome.value}",
            "",
            f"{statement.claim} ({statement.place}).",
            "",
            f"- paper: {statement.paper}",
            f"- measured: {verdict.reason}",
            f"- how: {statement.measured}",
            f"- criterion: {statement.criterion}",
            *(
                f"- evidence: {_linked(entry, Path(folder))}: {entry.says}"
                for entry in verdict.evidence
            ),
        ]
        if verdict.commands:
            commands = map(shared_command, verdict.commands)
            lines += ["", "To test it:", "", "```", *commands, "```"]
        lines.append("")
    return "\n".join(lines)


def _linked(entry: Evidence, folder: Path) -> str:
    if Path(entry.path).is_absolute() or folder.is_absolute():
        return f"`{entry.name}`"
    return f"[{entry.name}]({Path(os.path.relpath(entry.path, folder)).as_posix()})"


def claims_json(verdicts: Sequence[Verdict]) -> str:
    """A JSON object: `verdicts`, each with its statement, paths shortened as in the Markdown."""
    return (
        json.dumps({"verdicts": [_as_dict(v) for v in verdicts]}, indent=2, allow_nan=False) + "\n"
    )


def _as_dict(verdict: Verdict) -> dict[str, Any]:
    statement = asdict(verdict.statement)
    return {
        **statement,
        "recipes": list(verdict.statement.recipes),
        "outcome": verdict.outcome.value,
        "reason": verdict.reason,
        "evidence": [
            {"name": entry.name, "path": shared_path(entry.path), "says": entry.says}
            for entry in verdict.evidence
        ],
        "commands": list(map(shared_command, verdict.commands)),
    }


def shared_path(path: str) -> str:
    """A relative path as it is; of an absolute one the last part."""
    return Path(path).name if Path(path).is_absolute() else path


def shared_command(command: str) -> str:
    """A command whose absolute paths are `.../` and their last part."""
    return " ".join(command_line(["bn-inception", *command.split(" ")[1:]]))


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
    folder = make_folder(folder)
    markdown, data = folder / "claims.md", folder / "claims.json"
    write_text(markdown, claims_markdown(verdicts, folder))
    write_text(data, claims_json(verdicts))
    return [markdown, data]


def required_numbers(verdicts: Sequence[Verdict], required: Sequence[int]) -> list[Verdict]:
    """The verdicts of the statements in `required` that do not hold or are not tested.

    Raises:
        UserError: a number of no statement.
    """
    known = {verdict.statement.number for verdict in verdicts}
    for number in required:
        if number not in known:
            raise UserError(
                f"require: there is no statement {number}; choose from {min(known)} to {max(known)}"
            )
    return [
        verdict
        for verdict in verdicts
        if verdict.statement.number in required and verdict.outcome is not Outcome.holds
    ]
