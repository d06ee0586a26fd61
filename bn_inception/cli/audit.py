"""`bn-inception audit`: what a data set holds, and what is wrong with it."""

import sys
from contextlib import closing
from dataclasses import dataclass, field

from bn_inception.cli.command import Call, Command
from bn_inception.cli.output import output_file
from bn_inception.cli.progress import ProgressBar
from bn_inception.data import DataConfig
from bn_inception.files import write_json

PROBLEMS = 1


@dataclass
class AuditConfig:
    """The keys of `configs/audit.yaml`."""

    data: DataConfig = field(default_factory=DataConfig)
    output: str | None = None


def run(call: Call[AuditConfig]) -> int:
    """Audit; return 0 for a sound data set, 1 where problems were found."""
    from bn_inception.data.intake.audit import as_text, audit

    config = call.config
    output = output_file(config.output)
    with closing(ProgressBar(sys.stderr)) as bar:
        result = audit(config.data, bar)
    print(as_text(result))
    if output is not None:
        write_json(output, result)
        print(output)
    return PROBLEMS if result["problems"] else 0


COMMAND = Command("audit", AuditConfig, run)
