"""`bn-inception audit`: what a data set holds, and what is wrong with it."""

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

from bn_inception.cli.arguments import output_file, split_positional, take_print_config
from bn_inception.config import compose, write_yaml
from bn_inception.config.convert import checked
from bn_inception.errors import UserError

PROBLEMS = 1


def run(arguments: Sequence[str]) -> int:
    """Audit; return 0 for a sound data set, 1 where problems were found."""
    arguments, print_config = take_print_config(arguments)
    plain, overrides = split_positional(arguments)
    if plain:
        raise UserError(f"{plain[0]}: audit takes key=value only; see bn-inception audit -h")
    composed = compose("audit", overrides)
    if print_config:
        print(write_yaml(composed), end="")
        return 0
    from bn_inception.cli.progress import ProgressBar
    from bn_inception.data import DataConfig
    from bn_inception.data.intake.audit import audit
    from bn_inception.data.intake.findings import as_text
    from bn_inception.files import write_json

    @dataclass
    class AuditConfig:
        """The keys of `configs/audit.yaml`."""

        data: DataConfig = field(default_factory=DataConfig)
        output: str | None = None

    config = checked(composed, AuditConfig)
    output = output_file(config.output)
    with closing(ProgressBar(sys.stderr)) as bar:
        result = audit(config.data, bar)
    print(as_text(result))
    if output is not None:
        write_json(output, result.as_dict())
        print(output)
    return PROBLEMS if result.problems else 0
