"""`bn-inception prepare`: shards of a data set as it was downloaded."""

import sys
from contextlib import closing

from bn_inception.cli.command import Call, Command
from bn_inception.cli.progress import ProgressBar
from bn_inception.data.intake.prepare import PrepareConfig, Prepared, prepare


def run(call: Call[PrepareConfig]) -> int:
    """Make, complete or check shards; return 0."""
    with closing(ProgressBar(sys.stderr)) as bar:
        prepared = prepare(call.config, bar.say, bar)
    for done in prepared:
        print(as_line(done))
    print(f"read them with data=shards data.root={call.config.target}")
    return 0


def as_line(done: Prepared) -> str:
    """What was made of a split, and how fast."""
    line = (
        f"{done.split}: {done.images:,} images in {done.shards:,} shards, "
        f"{done.bytes / 1e6:,.1f} MB; "
    )
    if not done.written:
        return line + "all there, checksums right"
    rate = done.written / max(done.seconds, 1e-9)
    return line + f"{done.written:,} images written in {done.seconds:.1f} s: {rate:,.0f} images/s"


COMMAND = Command("prepare", PrepareConfig, run)
