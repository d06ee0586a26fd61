"""`bn-inception runs`: how the runs in a folder stand."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bn_inception.cli.command import Call, Command
from bn_inception.errors import UserError

_HOME_AND_CLEAR = "\x1b[H\x1b[2J"


@dataclass
class RunsConfig:
    """The keys of `configs/runs.yaml`."""

    folder: str
    watch: bool
    interval: float

    def __post_init__(self) -> None:
        if not self.interval > 0:
            raise UserError(f"interval: {self.interval} is not above 0; give seconds")


def run(call: Call[RunsConfig]) -> int:
    """Print a line a run, once or until Ctrl-C; return 0."""
    from bn_inception.report.progress import HEADER, read_progress

    config = call.config
    while True:
        runs = read_progress(Path(config.folder))
        if not runs:
            raise UserError(f"{config.folder}: no run in it; give the folder of your runs")
        lines = "\n".join([HEADER, *(one.line() for one in runs)])
        if not config.watch:
            print(lines)
            return 0
        print(_HOME_AND_CLEAR + lines if sys.stdout.isatty() else lines, flush=True)
        time.sleep(config.interval)


class RunsCommand(Command[RunsConfig]):
    """`--watch` is `watch=true`."""

    def __call__(self, arguments: Sequence[str]) -> int:
        """See Command."""
        return super().__call__(["watch=true" if w == "--watch" else w for w in arguments])


COMMAND = RunsCommand("runs", RunsConfig, run, plain="folder")
