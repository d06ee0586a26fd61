"""`bn-inception prepare`: shards of a data set as it was downloaded."""

import sys
from collections.abc import Sequence
from contextlib import closing

from bn_inception.cli.arguments import split_positional, take_print_config
from bn_inception.cli.progress import ProgressBar
from bn_inception.config import compose, write_yaml
from bn_inception.config.convert import checked
from bn_inception.errors import UserError


def run(arguments: Sequence[str]) -> int:
    """Make, complete or check shards; return the exit status."""
    arguments, print_config = take_print_config(arguments)
    plain, overrides = split_positional(arguments)
    if plain:
        raise UserError(f"{plain[0]}: prepare takes key=value only; see bn-inception prepare -h")
    composed = compose("prepare", overrides)
    if print_config:
        print(write_yaml(composed), end="")
        return 0
    from bn_inception.data.intake.prepare import PrepareConfig, Prepared, prepare

    def as_line(done: Prepared) -> str:
        line = (
            f"{done.split}: {done.images:,} images in {done.shards:,} shards, "
            f"{done.bytes / 1e6:,.1f} MB; "
        )
        if not done.written:
            return line + "all there, checksums right"
        seconds = max(done.seconds, 1e-9)
        by = "1 process" if done.processes == 1 else f"{done.processes} processes"
        return line + (
            f"{done.written:,} images written in {seconds:.1f} s by {by}: "
            f"{done.written / seconds:,.0f} images/s, "
            f"{done.written_bytes / 1e6 / seconds:,.1f} MB/s"
        )

    config = checked(composed, PrepareConfig)
    with closing(ProgressBar(sys.stderr)) as bar:
        prepared = prepare(config, bar.say, bar)
    for done in prepared:
        print(as_line(done))
    print(f"read them with data=shards data.root={config.target}")
    return 0
