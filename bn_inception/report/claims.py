"""The statements of `bn_inception.paper.statements`, judged by runs.

Only what has ended is evidence: a run that goes on or was interrupted may still do otherwise. Runs
are compared where they share scale, data, classes and whatever was set otherwise than in their
recipes. Of several such settings, one in which a statement does not hold outweighs those in which
it does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bn_inception.paper.statements import STATEMENTS, Statement
from bn_inception.report.evaluations import Evaluation
from bn_inception.report.findings import Evidence, Finding, Outcome, Setting, both, find_settings
from bn_inception.report.judges import JUDGES, judge_invariance
from bn_inception.report.runs import Run


@dataclass(frozen=True)
class Verdict:
    """One statement, judged.

    Attributes:
        statement: which.
        outcome: see Outcome.
        reason: the numbers that decide, or what is missing.
        evidence: what was looked at.
        commands: where not tested, what would test it, one after the other; else empty.
    """

    statement: Statement
    outcome: Outcome
    reason: str
    evidence: tuple[Evidence, ...]
    commands: tuple[str, ...]


def judge(
    runs: Sequence[Run],
    *,
    ensembles: Sequence[Evaluation] = (),
    invariance: tuple[float, float] | None = None,
) -> list[Verdict]:
    """Judge every statement.

    Args:
        runs: at least one; of equal ones the most often evaluated counts.
        ensembles: saved evaluations of several networks.
        invariance: largest relative differences of outputs and gradients, for statement 7, as
            `bn_inception.network.invariance.scale_invariance` gives them; None if not computed.

    Returns:
        One verdict a statement, in their order.
    """
    groups = find_settings(runs, ensembles)
    verdicts = []
    for statement in STATEMENTS:
        if statement.number == 7:
            finding = judge_invariance(invariance)
        else:
            finding = _of_all_settings(groups, JUDGES[statement.number])
        verdicts.append(_verdict(statement, finding))
    return verdicts


def _verdict(statement: Statement, finding: Finding) -> Verdict:
    outcome = {True: Outcome.holds, False: Outcome.does_not_hold, None: Outcome.not_tested}
    commands = finding.commands if finding.holds is None else ()
    return Verdict(
        statement,
        outcome[finding.holds],
        finding.reason,
        finding.evidence,
        tuple(dict.fromkeys(commands)),
    )


def _of_all_settings(
    settings: Sequence[Setting], judged_in: Callable[[Setting], Finding]
) -> Finding:
    findings = [(setting, judged_in(setting)) for setting in settings]
    tested = [(setting, finding) for setting, finding in findings if finding.holds is not None]
    if not tested:
        # The setting nearest to a verdict says what is missing.
        return max(
            (finding for _, finding in findings), key=lambda f: (len(f.evidence), -len(f.commands))
        )
    together = both(*(finding for _, finding in tested))
    if len(settings) == 1:
        return together
    reasons = [f"{finding.reason} [{setting.name}]" for setting, finding in tested]
    return replace(together, reason="; ".join(reasons))
