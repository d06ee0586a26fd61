"""The statements, judged by runs, each setting by itself, and shown; rules: docs/statements.md."""

import json
import math
import os
import shlex
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bn_inception.errors import UserError
from bn_inception.files import make_folder, write_text
from bn_inception.quoting import markdown_cell, shell_command
from bn_inception.record.environment import command_line
from bn_inception.report.comparison import Figure3, Kind
from bn_inception.report.curves import Target, curves_of, percent, plateau_of
from bn_inception.report.estimates import points
from bn_inception.report.measures import Decision, Part, together
from bn_inception.report.runs import Evaluation, Run
from bn_inception.report.settings import (
    PLAIN,
    Setting,
    Words,
    another_seed,
    find_settings,
    for_copying,
    missing,
)
from bn_inception.report.statements import RULES, STATEMENTS, Statement
from bn_inception.table import Table


@dataclass(frozen=True)
class Evidence:
    """What one run, or one file, says."""

    name: str
    path: str
    says: str


@dataclass(frozen=True)
class Verdict:
    """What becomes of a statement in one setting, in words; empty for a computation.

    `reason` has the numbers that decide, or what is missing; `commands` what would help, one after
    the other, where it is undecided or not tested.
    """

    setting: str
    decision: Decision
    reason: str
    evidence: tuple[Evidence, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def is_tested(self) -> bool:
        """Whether it says anything of the statement."""
        return self.decision is not Decision.not_tested


@dataclass(frozen=True)
class Judged:
    """One statement, and its verdicts by setting, the nearest to the paper first."""

    statement: Statement
    verdicts: tuple[Verdict, ...]

    @property
    def leading(self) -> Verdict:
        """That of the setting nearest to the paper that tests it."""
        return next((v for v in self.verdicts if v.is_tested), self.verdicts[0])


def judge(
    runs: Sequence[Run],
    *,
    ensembles: Sequence[Evaluation] = (),
    differences: tuple[float, float] | None = None,
) -> list[Judged]:
    """Judge every statement, by number, in every setting that tests one, or else in the nearest.

    Of equal runs the most often evaluated counts. `differences` are the largest relative ones of
    outputs and gradients, for statement 7 (`bn_inception.network.normalization.scale_invariance`).
    """
    computed = Setting((), differences=differences)
    rows = [
        [_judge(setting if statement.needs else computed, statement) for statement in STATEMENTS]
        for setting in find_settings(runs, ensembles)
    ]
    telling = [row for row in rows if any(v.setting and v.is_tested for v in row)]
    nearest = max(rows, key=lambda row: sum(len(verdict.evidence) for verdict in row))
    columns = zip(*(telling or [nearest]), strict=True)
    return [
        Judged(statement, tuple(dict.fromkeys(verdicts)))
        for statement, verdicts in zip(STATEMENTS, columns, strict=True)
    ]


def _judge(setting: Setting, statement: Statement) -> Verdict:
    parts, commands = _decided(setting, statement)
    return Verdict(
        setting.name,
        together([part.decision for part in parts]),
        "; ".join(dict.fromkeys(part.reason for part in parts)),
        tuple(_evidence(setting, statement)),
        for_copying(commands),
    )


def _decided(setting: Setting, statement: Statement) -> tuple[list[Part], list[Words]]:
    """What its parts come to, and the commands that would help."""
    if setting.runs and setting.runs[0].unknown:
        reason = f"what was run is not known: {'; '.join(setting.runs[0].unknown)}"
        return [Part(Decision.not_tested, reason)], []
    reasons, commands = missing(setting, statement.needs, ensemble=statement.ensemble)
    if not reasons and PLAIN in statement.needs and setting.target.fault:
        reasons = [setting.target.fault]
    if reasons:
        return [Part(Decision.not_tested, "; ".join(reasons))], commands
    parts = [measure.decide(setting) for measure in statement.measures]
    is_open = together([p.decision for p in parts]) in (Decision.undecided, Decision.not_tested)
    return parts, another_seed(setting, statement.needs) if is_open else []


def _evidence(setting: Setting, statement: Statement) -> list[Evidence]:
    """The runs that count, with what each says, and the files."""
    target = setting.target if PLAIN in statement.needs else None
    runs = [(need, run) for need in statement.needs for run in setting.of(need)]
    found = [Evidence(run.name, str(run.path), _says(run, target)) for _, run in runs]
    files = [entry for need, run in runs if need.crops for entry in run.own_evaluations]
    files += setting.ensembles if statement.ensemble else ()
    return [*found, *(Evidence(file.path.name, str(file.path), file.says) for file in files)]


def _says(run: Run, target: Target | None) -> str:
    """A run's plateau, its steps to the target, and how it ended where not by finishing."""
    level, own, diverged = plateau_of(run), curves_of([run]), run.summary.diverged
    parts = [] if level is None else [f"plateau {percent(level)}"]
    if own and target and target.level is not None and target.level > own.chance:
        (at,), (reached,) = target.steps(own)
        when = f"at step {at:,.0f}" if reached else f"never, in {at:,.0f} steps"
        parts.append(f"{percent(target.level)} {when}")
    if diverged is not None:
        parts.append(f"diverged at step {diverged.step:,} in {diverged.layer}")
    elif not run.summary.started_learning:
        parts.append("did not start learning")
    return "; ".join(parts) or "no evaluation"


_COLUMNS = 80
"""Of a terminal."""


def claims_table(found: Sequence[Judged]) -> Table:
    """One row a statement, one column a setting, the nearest to the paper first."""
    # What is computed has no setting, and stands in every column.
    settings = list(dict.fromkeys(v.setting for judged in found for v in judged.verdicts))
    settings = [setting for setting in settings if setting]
    rows = []
    for judged in found:
        decisions = {verdict.setting: verdict.decision.value for verdict in judged.verdicts}
        cells = [decisions.get(setting, decisions.get("", "-")) for setting in settings]
        statement = judged.statement
        rows.append((str(statement.number), statement.title, *cells, statement.paper))
    numbered = list(enumerate(settings, start=1)) if len(settings) > 1 else []
    columns = [f"setting {number}" for number, _ in numbered] or ["verdict"]
    notes = [f"Setting {number}: {setting}." for number, setting in numbered]
    header = ("", "statement", *columns, "paper")
    return Table(header, rows, (0,), lead=_count_line(found), notes=notes)


def _count_line(found: Sequence[Judged]) -> str:
    """How many hold, do not hold, are undecided and not tested, where the paper is nearest."""
    counts = Counter(judged.leading.decision for judged in found)
    settings = {judged.leading.setting for judged in found} - {""}
    where = f" ({settings.pop()})" if len(settings) == 1 else ""
    return (
        f"{len(found)} statements of the paper: {counts[Decision.holds]} hold, "
        f"{counts[Decision.does_not_hold]} not, {counts[Decision.undecided]} undecided, "
        f"{counts[Decision.not_tested]} not tested{where}."
    )


def conclusion(comparison: Figure3, found: Sequence[Judged]) -> list[str]:
    """What held, what did not, and by how much: a sentence each; without verdicts the last."""
    titles: dict[Decision, list[str]] = {decision: [] for decision in Decision}
    for judged in found:
        titles[judged.leading.decision].append(f"\u201c{judged.statement.title}\u201d")
    held, failed = titles[Decision.holds], titles[Decision.does_not_hold]
    sentences = [
        f"Held, {len(held)} of {len(found)} statements of the paper: {', '.join(held) or 'none'}.",
        f"Did not hold, {len(failed)}: {', '.join(failed) or 'none'}; "
        f"{len(titles[Decision.undecided])} undecided, "
        f"{len(titles[Decision.not_tested])} not tested.",
    ]
    return [*(sentences if found else []), f"By how much: {_how_much(comparison)}."]


def _how_much(comparison: Figure3) -> str:
    """The recipe that needs the fewest steps, and that which ends highest."""
    baseline, target = comparison.baseline, comparison.target
    rows = [(row.difference, row) for row in comparison.of(Kind.recipe) if row.difference]
    if target is None or not rows:
        return f"no other recipe can be compared with {baseline} yet"
    reached = [(row.ratio, row) for _, row in rows if row.ratio and math.isfinite(row.ratio.high)]
    fastest = f"no recipe reached {percent(target)} with every seed"
    if comparison.fault:
        fastest = f"steps show nothing, for {comparison.fault}"
    elif reached:
        ratio, row = min(reached, key=lambda found: found[0].value)
        paper = "" if row.paper_ratio is None else f", the paper: {percent(row.paper_ratio)}"
        fastest = (
            f"{row.title} reached {percent(target)} in {percent(ratio.value)} of {baseline}'s "
            f"steps ({percent(ratio.low)} to {percent(ratio.high)}{paper})"
        )
    gain, row = max(rows, key=lambda found: found[0].value)
    return f"{fastest}; {row.title} ended {points(gain)} from the plateau of {baseline}"


def claims_text(found: Sequence[Judged]) -> str:
    """The table, then each statement with what was measured, the evidence and the commands."""
    blocks = [claims_table(found).as_text(_COLUMNS)]
    for judged in found:
        lines = [_wrapped(f"{judged.statement.number}. {judged.statement.claim}", 3)]
        for verdict in judged.verdicts:
            where = f"{verdict.setting}: " if len(judged.verdicts) > 1 else ""
            said = [f"{where}{verdict.decision.value}: {verdict.reason}"]
            said += [f"{entry.name}: {entry.says} ({entry.path})" for entry in verdict.evidence]
            lines += [_wrapped(f"   {text}", 5) for text in said]
            # Never wrapped: to be copied.
            lines += [f"   $ {command}" for command in verdict.commands]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _wrapped(text: str, indent: int) -> str:
    return textwrap.fill(
        text,
        _COLUMNS,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def write_claims(found: Sequence[Judged], folder: Path) -> list[Path]:
    """Write `claims.md` and `claims.json` into a folder, made where it is missing."""
    make_folder(folder, "output")
    paths = [folder / "claims.md", folder / "claims.json"]
    for path, text in zip(paths, (claims_markdown(found, folder), claims_json(found)), strict=True):
        write_text(path, text)
    return paths


def claims_markdown(found: Sequence[Judged], folder: Path = Path()) -> str:
    """The same as Markdown, with what is measured of each and its limit.

    The text will lie in `folder`, for links to the evidence. Absolute paths are not linked and are
    shortened to their last part, so that the text can be shared.
    """
    lines = ["# The paper's statements", "", claims_table(found).as_markdown(), ""]
    lines += [line for rule in RULES for line in (rule, "")]
    for judged in found:
        statement = judged.statement
        lines += [
            f"## {statement.number}. {statement.title}: {judged.leading.decision.value}",
            "",
            f"{statement.claim} ({statement.place}).",
            "",
            f"- paper: {statement.paper}",
            f"- measured: {statement.measured}",
            f"- limit: {statement.limit}",
        ]
        for verdict in judged.verdicts:
            where = f" ({markdown_cell(verdict.setting)})" if verdict.setting else ""
            lines.append(f"- {verdict.decision.value}{where}: {markdown_cell(verdict.reason)}")
            lines += [
                f"  - {_linked(entry, folder)}: {markdown_cell(entry.says)}"
                for entry in verdict.evidence
            ]
        commands = [shared_command(command) for v in judged.verdicts for command in v.commands]
        if commands:
            lines += ["", "What would help:", "", "```", *commands, "```"]
        lines.append("")
    return "\n".join(lines)


def _linked(entry: Evidence, folder: Path) -> str:
    if Path(entry.path).is_absolute() or folder.is_absolute():
        return f"**{markdown_cell(entry.name)}**"
    address = quote(Path(os.path.relpath(entry.path, folder)).as_posix())
    return f"[{markdown_cell(entry.name)}]({address})"


def claims_json(found: Sequence[Judged]) -> str:
    """A JSON object: `verdicts`, by statement and setting, paths shortened as in the Markdown."""
    texts = ("number", "title", "claim", "place", "paper", "measured", "limit")
    verdicts = []
    for judged in found:
        statement = {name: getattr(judged.statement, name) for name in texts}
        for verdict in judged.verdicts:
            evidence = [
                vars(entry)
                | {"path": Path(entry.path).name if entry.path[0] == "/" else entry.path}
                for entry in verdict.evidence
            ]
            commands = list(map(shared_command, verdict.commands))
            more = {"evidence": evidence, "commands": commands}
            verdicts.append({**statement, **vars(verdict), **more})
    return json.dumps({"verdicts": verdicts}, indent=2, allow_nan=False) + "\n"


def shared_command(command: str) -> str:
    """A command whose absolute paths are `.../` and their last part."""
    return shell_command(command_line(shlex.split(command)))


def required_numbers(found: Sequence[Judged], required: Sequence[int]) -> list[Judged]:
    """Of the statements in `required` those that do not hold where the paper is nearest.

    A number of none is a UserError.
    """
    known = {judged.statement.number: judged for judged in found}
    for number in required:
        if number not in known:
            raise UserError(
                f"require: there is no statement {number}; choose from {min(known)} to {max(known)}"
            )
    wanted = [known[number] for number in sorted(set(required))]
    return [judged for judged in wanted if judged.leading.decision is not Decision.holds]
