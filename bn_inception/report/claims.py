"""The statements, judged by runs; rules: docs/statements.md.

Only whole runs are evidence. Runs are compared where they differ in recipe and seed alone, and each
such setting is judged by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bn_inception.report.commands import Words, for_copying
from bn_inception.report.estimates import percent
from bn_inception.report.evaluations import Evaluation, StabilityEdge
from bn_inception.report.measures import Decision, Part, together
from bn_inception.report.runs import Run
from bn_inception.report.settings import PLAIN, Setting, find_settings
from bn_inception.report.statements import STATEMENTS, Statement
from bn_inception.report.target import Target, curves_of


@dataclass(frozen=True)
class Evidence:
    """What one run, or one file, says."""

    name: str
    path: str
    says: str


@dataclass(frozen=True)
class Verdict:
    """One statement, judged in one setting.

    Attributes:
        setting: in words; empty for a computation.
        reason: the numbers that decide, or what is missing.
        evidence: what was looked at.
        commands: where undecided or not tested, what would help, one after the other; else empty.
    """

    statement: Statement
    setting: str
    decision: Decision
    reason: str
    evidence: tuple[Evidence, ...] = ()
    commands: tuple[str, ...] = ()


def judge(
    runs: Sequence[Run],
    *,
    ensembles: Sequence[Evaluation] = (),
    edges: Sequence[StabilityEdge] = (),
    differences: tuple[float, float] | None = None,
) -> list[Verdict]:
    """Judge every statement in every setting.

    Args:
        runs: at least one; of equal ones the most often evaluated counts.
        ensembles: saved evaluations of several networks.
        edges: shown beside statement 5 at their scale.
        differences: largest relative differences of outputs and gradients, for statement 7, as
            `bn_inception.network.invariance.scale_invariance` gives them; None if not computed.

    Returns:
        By statement, and within one by setting, the nearest to the paper first. A setting that
        tests no statement is left out, unless none does.
    """
    judged = [
        [_judge(setting, statement) for statement in STATEMENTS if statement.needs]
        for setting in find_settings(runs, ensembles, edges)
    ]
    nearest = max(judged, key=lambda verdicts: sum(len(v.evidence) for v in verdicts))
    telling = [
        verdicts for verdicts in judged if {v.decision for v in verdicts} - {Decision.not_tested}
    ]
    found = [verdict for verdicts in telling or [nearest] for verdict in verdicts]
    computed = Setting("", (), (), differences=differences)
    found += [_judge(computed, statement) for statement in STATEMENTS if not statement.needs]
    return sorted(found, key=lambda verdict: verdict.statement.number)


def _judge(setting: Setting, statement: Statement) -> Verdict:
    parts, commands = _decided(setting, statement)
    return Verdict(
        statement,
        setting.name,
        together([part.decision for part in parts]),
        "; ".join(dict.fromkeys(part.reason for part in parts)),
        tuple(_evidence(setting, statement)),
        for_copying(commands),
    )


def _decided(setting: Setting, statement: Statement) -> tuple[list[Part], list[Words]]:
    """What its parts come to, and the commands that would help."""
    if setting.unknown:
        reason = f"what was run is not known: {'; '.join(setting.unknown)}"
        return [Part(Decision.not_tested, reason)], []
    reasons, commands = statement.missing(setting)
    if reasons:
        return [Part(Decision.not_tested, "; ".join(reasons))], commands
    if PLAIN in statement.needs and setting.target.fault:
        return [Part(Decision.not_tested, setting.target.fault)], []
    parts = statement.parts(setting)
    is_open = together([p.decision for p in parts]) in (Decision.undecided, Decision.not_tested)
    return parts, statement.another_seed(setting) if is_open and statement.needs else []


def _evidence(setting: Setting, statement: Statement) -> list[Evidence]:
    """The runs that count, with what each says, and the files."""
    target = setting.target if PLAIN in statement.needs else None
    runs = [(need, run) for need in statement.needs for run in setting.of(need)]
    found = [Evidence(run.name, str(run.path), _says(run, target)) for _, run in runs]
    files: list[Evaluation | StabilityEdge] = []
    files += [entry for need, run in runs if need.crops for entry in run.own_evaluations]
    files += setting.ensembles if statement.ensemble else ()
    files += setting.edges if statement.edge else ()
    return [*found, *(Evidence(file.path.name, str(file.path), file.in_words()) for file in files)]


def _says(run: Run, target: Target | None) -> str:
    """A run's plateau, its steps to the target, and how it ended where not by finishing."""
    parts = []
    if run.plateau is not None:
        parts.append(f"plateau {percent(run.plateau)}")
    own = curves_of([run])
    if target is not None and target.level is not None and own and target.level > own.chance:
        (at,), (reached,) = target.steps(own)
        when = f"at step {at:,.0f}" if reached else f"never, in {at:,.0f} steps"
        parts.append(f"{percent(target.level)} {when}")
    if run.summary.diverged is not None:
        where = run.summary.diverged
        parts.append(f"diverged at step {where.step:,} in {where.layer}")
    elif not run.summary.started_learning:
        parts.append("did not start learning")
    return "; ".join(parts) or "no evaluation"


def by_statement(verdicts: Sequence[Verdict]) -> list[list[Verdict]]:
    """The verdicts of each statement, side by side."""
    numbers = sorted({verdict.statement.number for verdict in verdicts})
    return [[v for v in verdicts if v.statement.number == number] for number in numbers]


def leading(verdicts: Sequence[Verdict]) -> Verdict:
    """Of one statement's verdicts the one of the setting nearest to the paper that tests it."""
    tested = [v for v in verdicts if v.decision is not Decision.not_tested]
    return (tested or list(verdicts))[0]
