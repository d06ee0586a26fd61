"""`bn-inception prepare` and `audit`: data sets as they were downloaded."""

from contextlib import closing, suppress

from bn_inception.cli.command import Call, command, output_file
from bn_inception.cli.terminal import ProgressBar
from bn_inception.data import DataConfig
from bn_inception.data.config import audit_record
from bn_inception.data.intake import audit as audits
from bn_inception.data.intake import prepare as shards
from bn_inception.errors import UserError
from bn_inception.files import make_folder, write_json
from bn_inception.quoting import say


@command("prepare", shards.PrepareConfig)
def prepare(call: Call[shards.PrepareConfig]) -> None:
    """Make, complete or check shards."""
    with closing(ProgressBar()) as bar:
        prepared = shards.prepare(call.config, say, bar)
    for done in prepared:
        print(_as_line(done))
    print(f"read them with data=shards data.root={call.config.target}")


def _as_line(done: shards.Prepared) -> str:
    """What was made of a split, and how fast."""
    line = (
        f"{done.split}: {done.images:,} images in {done.shards:,} shards, "
        f"{done.bytes / 1e6:,.1f} MB; "
    )
    if not done.written:
        return line + "all there, checksums right"
    rate = done.written / max(done.seconds, 1e-9)
    return line + f"{done.written:,} images written in {done.seconds:.1f} s: {rate:,.0f} images/s"


@command("audit")
def audit(data: DataConfig, output: str | None) -> int:
    """Audit; the status is 1 where problems were found."""
    file = output_file(output)
    with closing(ProgressBar()) as bar:
        result = audits.audit(data, bar)
    print(audits.as_text(result))
    record = audit_record(data, result["fingerprint"])
    with suppress(UserError):  # only a run's advice depends on it
        make_folder(record.parent, "data.cache")
        write_json(record, result)
    if file is not None:
        write_json(file, result)
        print(file)
    return 1 if result["problems"] else 0
