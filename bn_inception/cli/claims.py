"""`bn-inception claims`: what the paper states, judged by the runs a person has made."""

from dataclasses import dataclass
from pathlib import Path

from bn_inception.cli.command import Call, Command
from bn_inception.cli.run_arguments import read_run_arguments

NOT_ALL_HOLD = 1


@dataclass
class ClaimsConfig:
    """The keys of `configs/claims.yaml`."""

    runs: list[str]
    require: list[int]
    output: str | None


def run(call: Call[ClaimsConfig]) -> int:
    """Judge the statements; return 0, or 1 where a required one does not."""
    from bn_inception.report import claims_text, judge, required_numbers, write_claims

    config = call.config
    given = read_run_arguments(config.runs)
    # Before torch is loaded: a wrong number is found at once.
    required_numbers(judge(given.runs, ensembles=given.ensembles), config.require)

    from bn_inception.network.invariance import scale_invariance

    verdicts = judge(given.runs, ensembles=given.ensembles, differences=scale_invariance())
    print(claims_text(verdicts))
    if config.output is not None:
        print()
        for path in write_claims(verdicts, Path(config.output)):
            print(path)
    failing = required_numbers(verdicts, config.require)
    for verdict in failing:
        print(f"\nrequired: {verdict.statement.number} {verdict.decision.value}")
    return NOT_ALL_HOLD if failing else 0


COMMAND = Command("claims", ClaimsConfig, run, plain="runs")
