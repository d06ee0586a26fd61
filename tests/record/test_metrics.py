import json
import math
import zlib
from pathlib import Path

import pytest

from bn_inception.errors import UserError
from bn_inception.record.metrics import MetricsLog, TrainRecord, ValidationRecord, read_metrics


def train(step, loss=1.5):
    return TrainRecord(step, float(step), loss, 0.045, 320.0, 0.25)


def write(path, records):
    log = MetricsLog(path)
    for record in records:
        log.append(record)
    log.close()


@pytest.mark.parametrize(("loss", "stored"), [(1.5, 1.5), (math.nan, None), (-math.inf, None)])
def test_written_lines_are_the_documented_objects(tmp_path, loss, stored):
    path = tmp_path / "metrics.jsonl"
    write(path, [train(10, loss), ValidationRecord(10, 10.0, 1.25, 0.5, 0.75, 50)])
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first == {
        "kind": "train", "step": 10, "equivalent_steps": 10.0, "loss": stored,
        "learning_rate": 0.045, "images_per_second": 320.0, "top1": 0.25,
    }  # fmt: skip
    assert second == {
        "kind": "validation", "step": 10, "equivalent_steps": 10.0, "loss": 1.25, "top1": 0.5,
        "top5": 0.75, "count": 50, "statistics": None, "population_batches": None,
    }  # fmt: skip
    assert read_metrics(path)[0] == train(10, stored)


def test_lines_with_only_the_essential_keys_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"kind": "train", "step": 5, "equivalent_steps": 5, "loss": null, "learning_rate": 0.1}\n'
        '{"kind": "validation", "step": 5, "equivalent_steps": 5, "top1": 0, "top5": 1, "count": 4}'
    )
    assert [record.step for record in read_metrics(path)] == [5, 5]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ('{"kind": "test", "step": 1}', "expected train or validation"),
        ('{"kind": "train", "step": 1, "equivalent_steps": NaN}', "NaN is out of range"),
        ('{"kind": "validation", "step": 1, "equivalent_steps": 1, "top1": 50}', "fraction"),
    ],
)
def test_a_broken_line_in_the_middle_is_named(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    write(path, [train(1), train(2)])
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n{second}\n")
    with pytest.raises(UserError) as error:
        read_metrics(path)
    assert f"{path}, line 2" in str(error.value) and message in str(error.value)


def test_a_full_disk_is_a_user_error(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
    with pytest.raises(UserError, match="No space left"):
        log.append(train(1))
    log.close()


def test_other_lines_than_the_checkpoints_are_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [train(step, 1 / step) for step in range(1, 5)])
    content = path.read_bytes()
    lines, checksum = content.count(b"\n"), zlib.crc32(content)
    for found, said in (
        # Another run's file, or one with a digit changed.
        (content.replace(b'"loss": 1.0', b'"loss": 1.5', 1), "other lines than those with which"),
        (content[: content.index(b"\n") + 1], "1 lines, but the checkpoint was made with 4"),
        (b"", "0 lines, but the checkpoint was made with 4"),
    ):
        path.write_bytes(found)
        with pytest.raises(UserError, match=said):
            MetricsLog(path, lines, checksum)
