"""Verdicts for the terminal, as Markdown and as JSON."""

import json
import math
import os
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bn_inception.errors import UserError
from bn_inception.files import make_folder, write_text
from bn_inception.quoting import markdown_cell
from bn_inception.record.environment import command_line
from bn_inception.report.claims import Evidence, Verdict, by_statement, leading
from bn_inception.report.comparison import Figure3, Kind
from bn_inception.report.estimates import percent, points
from bn_inception.report.measures import Decision
from bn_inception.report.statements import RULES
from bn_inception.report.tables import Table

_COLUMNS = 80
"""Of a terminal."""


def claims_table(verdicts: Sequence[Verdict]) -> Table:
    """One row a statement, one column a setting, the nearest to the paper first."""
    settings = list(dict.fromkeys(v.setting for v in verdicts if v.setting))
    rows = []
    for judged in by_statement(verdicts):
        statement = judged[0].statement
        found = {verdict.setting: verdict.decision.value for verdict in judged}
        cells = [found.get(setting, found.get("", "-")) for setting in settings]
        rows.append((str(statement.number), statement.title, *cells, statement.paper))
    several = range(1, len(settings) + 1) if len(settings) > 1 else ()
    verdict = [f"setting {number}" for number in several] or ["verdict"]
    notes = [f"Setting {number}: {settings[number - 1]}." for number in several]
    header = ("", "statement", *verdict, "paper")
    return Table("", _count_line(verdicts), header, rows, (0,), notes)


def _count_line(verdicts: Sequence[Verdict]) -> str:
    """How many hold, do not hold, are undecided and not tested, where the paper is nearest."""
    first = [leading(judged) for judged in by_statement(verdicts)]
    counts = Counter(verdict.decision for verdict in first)
    settings = {verdict.setting for verdict in first} - {""}
    where = f" ({settings.pop()})" if len(settings) == 1 else ""
    return (
        f"{len(first)} statements of the paper: {counts[Decision.holds]} hold, "
        f"{counts[Decision.does_not_hold]} not, {counts[Decision.undecided]} undecided, "
        f"{counts[Decision.not_tested]} not tested{where}."
    )


def conclusion(comparison: Figure3, verdicts: Sequence[Verdict]) -> list[str]:
    """What held, what did not, and by how much: a sentence each; without verdicts the last."""
    found: dict[Decision, list[str]] = {decision: [] for decision in Decision}
    for judged in by_statement(verdicts):
        found[leading(judged).decision].append(f"\u201c{judged[0].statement.title}\u201d")
    held, failed = found[Decision.holds], found[Decision.does_not_hold]
    undecided, untested = len(found[Decision.undecided]), len(found[Decision.not_tested])
    sentences = [
        f"Held, {len(held)} of {sum(map(len, found.values()))} statements of the paper: "
        f"{', '.join(held) or 'none'}.",
        f"Did not hold, {len(failed)}: {', '.join(failed) or 'none'}; {undecided} undecided, "
        f"{untested} not tested.",
    ]
    return [*(sentences if verdicts else []), f"By how much: {_how_much(comparison)}."]


def _how_much(comparison: Figure3) -> str:
    """Of the recipe that needs the fewest steps; where none gets there, that which ends highest."""
    baseline, target = comparison.baseline, comparison.target
    rows = [
        (row.ratio.value if row.ratio and math.isfinite(row.ratio.high) else math.inf, gain, row)
        for row in comparison.of(Kind.recipe)
        if (gain := row.difference)
    ]
    if target is None or not rows:
        return f"no other recipe can be compared with {baseline} yet"
    share, gain, row = min(rows, key=lambda found: (found[0], -found[1].value))
    reached = f"no recipe reached {percent(target)} with every seed"
    if row.ratio and math.isfinite(share):
        paper = "" if row.paper_ratio is None else f", the paper: {percent(row.paper_ratio)}"
        reached = (
            f"{row.title} reached {percent(target)} in {percent(share)} of {baseline}'s steps "
            f"({percent(row.ratio.low)} to {percent(row.ratio.high)}{paper})"
        )
    return f"{reached}; {row.title} ended {points(gain)} from the plateau of {baseline}"


def claims_text(verdicts: Sequence[Verdict]) -> str:
    """The table, then each statement with what was measured, the evidence and the commands."""
    blocks = [claims_table(verdicts).as_text(_COLUMNS)]
    for judged in by_statement(verdicts):
        statement = judged[0].statement
        lines = [_wrapped(f"{statement.number}. ", statement.claim)]
        for verdict in judged:
            where = f"{verdict.setting}: " if len(judged) > 1 else ""
            lines.append(_wrapped(f"   {where}{verdict.decision.value}: ", verdict.reason))
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
        _COLUMNS,
        subsequent_indent="   " if begin[0].isdigit() else "     ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def write_claims(verdicts: Sequence[Verdict], folder: Path) -> list[Path]:
    """Write `claims.md` and `claims.json` into a folder, made where it is missing."""
    make_folder(folder, "output")
    files = {
        folder / "claims.md": claims_markdown(verdicts, folder),
        folder / "claims.json": claims_json(verdicts),
    }
    for path, text in files.items():
        write_text(path, text)
    return list(files)


def claims_markdown(verdicts: Sequence[Verdict], folder: Path = Path()) -> str:
    """The same as Markdown, with what is measured of each and its limit.

    The text will lie in `folder`, for links to the evidence. Absolute paths are not linked and are
    shortened to their last part, so that the text can be shared.
    """
    lines = ["# The paper's statements", "", claims_table(verdicts).as_markdown(), ""]
    lines += [line for rule in RULES for line in (rule, "")]
    for judged in by_statement(verdicts):
        statement = judged[0].statement
        lines += [
            f"## {statement.number}. {statement.title}: {leading(judged).decision.value}",
            "",
            f"{statement.claim} ({statement.place}).",
            "",
            f"- paper: {statement.paper}",
            f"- measured: {statement.measured}",
            f"- limit: {statement.limit}",
        ]
        for verdict in judged:
            where = f" ({markdown_cell(verdict.setting)})" if verdict.setting else ""
            lines.append(f"- {verdict.decision.value}{where}: {markdown_cell(verdict.reason)}")
            lines += [
                f"  - {_linked(entry, folder)}: {markdown_cell(entry.says)}"
                for entry in verdict.evidence
            ]
        commands = [shared_command(command) for v in judged for command in v.commands]
        if commands:
            lines += ["", "What would help:", "", "```", *commands, "```"]
        lines.append("")
    return "\n".join(lines)


def _linked(entry: Evidence, folder: Path) -> str:
    if Path(entry.path).is_absolute() or folder.is_absolute():
        return f"**{markdown_cell(entry.name)}**"
    address = quote(Path(os.path.relpath(entry.path, folder)).as_posix())
    return f"[{markdown_cell(entry.name)}]({address})"


def claims_json(verdicts: Sequence[Verdict]) -> str:
    """A JSON object: `verdicts`, by statement and setting, paths shortened as in the Markdown."""
    entries = list(map(_as_dict, verdicts))
    return json.dumps({"verdicts": entries}, indent=2, allow_nan=False) + "\n"


def _as_dict(verdict: Verdict) -> dict[str, Any]:
    texts = ("number", "title", "claim", "place", "paper", "measured", "limit")
    evidence = [
        {**vars(entry), "path": entry.path if entry.path[0] != "/" else Path(entry.path).name}
        for entry in verdict.evidence
    ]
    return {
        **{name: getattr(verdict.statement, name) for name in texts},
        **{name: getattr(verdict, name) for name in ("setting", "decision", "reason")},
        "evidence": evidence,
        "commands": list(map(shared_command, verdict.commands)),
    }


def shared_command(command: str) -> str:
    """A command whose absolute paths are `.../` and their last part."""
    return " ".join(command_line(["bn-inception", *command.split(" ")[1:]]))


def required_numbers(verdicts: Sequence[Verdict], required: Sequence[int]) -> list[Verdict]:
    """Of the statements in `required` the verdicts that are not "holds".

    A statement is judged by the setting nearest to the paper that tests it. A number of none is a
    UserError.
    """
    known = {judged[0].statement.number: leading(judged) for judged in by_statement(verdicts)}
    for number in required:
        if number not in known:
            raise UserError(
                f"require: there is no statement {number}; choose from {min(known)} to {max(known)}"
            )
    wanted = [known[number] for number in sorted(set(required))]
    return [verdict for verdict in wanted if verdict.decision is not Decision.holds]
