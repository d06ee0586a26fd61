"""The statements, judged by runs, each setting by itself; rules: docs/statements.md."""

from collections.abc import Sequence
from dataclasses import dataclass

from bn_inception.report.curves import Target, curves_of, percent, plateau_of
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
from bn_inception.report.statements import STATEMENTS, Statement


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
