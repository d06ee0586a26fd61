"""The statements of `bn_inception.paper.statements`, judged by runs; rules: docs/statements.md.

Only whole runs are evidence. Runs are compared where they differ in recipe and seed alone, and each
such setting is judged by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bn_inception.paper.statements import STATEMENTS, Statement
from bn_inception.record.summary import RunStatus
from bn_inception.report.curves import learned_limit, steps_to, still_climbs, target_of
from bn_inception.report.estimates import percent
from bn_inception.report.evaluations import Evaluation, StabilityEdge
from bn_inception.report.judges import MEASURES, PLAIN, Decision, Part, invariance, together
from bn_inception.report.runs import Run
from bn_inception.report.settings import Setting, curves_of, find_settings


@dataclass(frozen=True)
class Evidence:
    """What one run, or one file, says.

    Attributes:
        name: of the run or file.
        path: where it is.
        says: the numbers.
    """

    name: str
    path: str
    says: str


@dataclass(frozen=True)
class Verdict:
    """One statement, judged in one setting.

    Attributes:
        statement: which.
        setting: in words; empty for a computation.
        decision: see Decision.
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
        edges: stability edges, shown beside statement 5 at their scale.
        differences: largest relative differences of outputs and gradients, for statement 7, as
            `bn_inception.network.invariance.scale_invariance` gives them; None if not computed.

    Returns:
        By statement, and within one by setting, the nearest to the paper first. A setting that
        tests no statement is left out, unless none does.
    """
    settings = find_settings(runs, ensembles)
    judged = [
        [_judge_in(setting, s, edges) for s in STATEMENTS if s.number != 7] for setting in settings
    ]
    telling = [
        verdicts
        for verdicts in judged
        if any(verdict.decision is not Decision.not_tested for verdict in verdicts)
    ]
    nearest = max(judged, key=lambda verdicts: sum(len(v.evidence) for v in verdicts))
    found = [verdict for verdicts in telling or [nearest] for verdict in verdicts]
    seventh = next(statement for statement in STATEMENTS if statement.number == 7)
    part = invariance(differences)
    found.append(Verdict(seventh, "", part.decision, part.reason))
    return sorted(found, key=lambda verdict: verdict.statement.number)


def _judge_in(setting: Setting, statement: Statement, edges: Sequence[StabilityEdge]) -> Verdict:
    def verdict(parts: Sequence[Part], commands: Sequence[str]) -> Verdict:
        return Verdict(
            statement,
            setting.name,
            together([part.decision for part in parts]),
            "; ".join(dict.fromkeys(part.reason for part in parts)),
            tuple(_evidence(setting, statement, edges)),
            tuple(dict.fromkeys(commands)),
        )

    if setting.runs[0].unknown:
        reason = f"what was run is not known: {'; '.join(setting.runs[0].unknown)}"
        return verdict([Part(Decision.not_tested, reason)], ())
    reasons, commands = setting.missing(statement)
    if reasons:
        return verdict([Part(Decision.not_tested, "; ".join(reasons))], commands)
    if statement.baseline and (fault := no_target(setting.of(PLAIN))):
        return verdict([Part(Decision.not_tested, fault)], ())
    parts = MEASURES[statement.number](setting)
    decision = together([part.decision for part in parts])
    decided = decision in (Decision.holds, Decision.does_not_hold)
    return verdict(parts, () if decided else setting.another_seed(statement))


def no_target(plain: Sequence[Run]) -> str | None:
    """Why runs of the plain network set no target; None where they do."""
    for run in plain:
        if run.summary.status is RunStatus.diverged:
            return f"the plain network {run.name} diverged and sets no target"
    curves = curves_of(plain)
    if curves is None:
        return "the plain network has no evaluation"
    target, limit = float(target_of(curves.top1)), learned_limit(curves.chance)
    if target <= limit:
        return f"the target {percent(target)} is at chance (not above {percent(limit)})"
    if still_climbs(curves):
        return (
            "the plain network still climbs: its last third gains more than 2 points, or than a "
            "fifth of its plateau; a smaller scale.compression trains longer"
        )
    return None


def _evidence(
    setting: Setting, statement: Statement, edges: Sequence[StabilityEdge]
) -> list[Evidence]:
    """The runs that count, with what each says, and the files."""
    curves = setting.curves(PLAIN) if statement.baseline else None
    target = None if curves is None else float(target_of(curves.top1))
    found = [
        Evidence(run.name, str(run.path), _says(run, target))
        for need in statement.needs
        for run in setting.of(need)
    ]
    if statement.members:
        evaluations = [e for run in setting.of(statement.needs[0]) for e in run.own_evaluations]
        found += [
            Evidence(e.path.name, str(e.path), e.in_words())
            for e in (*evaluations, *setting.ensembles)
        ]
    if statement.number == 5:
        scale = setting.runs[0].summary.scale
        found += [Evidence(e.path.name, str(e.path), e.says) for e in edges if e.scale == scale]
    return found


def _says(run: Run, target: float | None) -> str:
    """A run's plateau, its steps to the target, and how it ended where not by finishing."""
    parts = []
    if run.plateau is not None:
        parts.append(f"plateau {percent(run.plateau)}")
    own = curves_of([run])
    if target is not None and own is not None and target > own.chance:
        (at,), (reached,) = steps_to(own.steps, own.top1, np.array([target]), own.chance)
        when = f"at step {at:,.0f}" if reached else f"never, in {at:,.0f} steps"
        parts.append(f"{percent(target)} {when}")
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
