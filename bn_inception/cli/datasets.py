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
    for split, images, shards_made, size, written, seconds in prepared:
        what = "all there, checksums right"
        if written:
            rate = written / max(seconds, 1e-9)
            what = f"{written:,} images written in {seconds:.1f} s: {rate:,.0f} images/s"
        print(f"{split}: {images:,} images in {shards_made:,} shards, {size / 1e6:,.1f} MB; {what}")
    print(f"read them with data=shards data.root={call.config.target}")


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
