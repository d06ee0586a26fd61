"""`bn-inception claims`: what the paper states, judged by the runs a person has made."""

from collections.abc import Sequence

from bn_inception.cli.arguments import split_positional, take_print_config
from bn_inception.cli.runs import read_run_arguments
from bn_inception.config import compose, write_yaml
from bn_inception.errors import UserError

NOT_ALL_HOLD = 1


def run(arguments: Sequence[str]) -> int:
    """Judge the statements; return 0, or 1 where a required one does not."""
    arguments, print_config = take_print_config(arguments)
    paths, overrides = split_positional(arguments)
    config = compose("claims", overrides)
    config["runs"] = [*config["runs"], *paths]
    if print_config:
        print(write_yaml(config), end="")
        return 0
    from bn_inception.report import claims_text, judge, required_numbers, write_claims

    required = _numbers(config["require"])
    given = read_run_arguments(config["runs"])
    # Before torch is loaded: a wrong number is found at once.
    required_numbers(judge(given.runs, ensembles=given.ensembles), required)

    from bn_inception.network.invariance import scale_invariance

    verdicts = judge(
        given.runs,
        ensembles=given.ensembles,
        edges=given.edges,
        differences=scale_invariance(),
    )
    print(claims_text(verdicts))
    if config["output"] is not None:
        print()
        for path in write_claims(verdicts, config["output"]):
            print(path)
    failing = required_numbers(verdicts, required)
    for verdict in failing:
        print(f"\nrequired: {verdict.statement.number} {verdict.decision.value}")
    return NOT_ALL_HOLD if failing else 0


def _numbers(value: object) -> list[int]:
    if not isinstance(value, list) or not all(type(number) is int for number in value):
        raise UserError(f"require: {value} is not a list of numbers; give require=[1,2]")
    return value
