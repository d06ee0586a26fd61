"""`metrics.jsonl` and `summary.json`."""

import io
import json
import math
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_inception.errors import UserError
from bn_inception.record.metrics import MetricsLog, TrainRecord, ValidationRecord, read_metrics
from bn_inception.record.summary import (
    Best,
    Milestone,
    RunStatus,
    Summary,
    milestones,
    read_summary,
)


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


def test_no_checkpoint_counts_on_a_record_that_lacks_a_line(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    whole, log._file = log._file, io.FileIO("/dev/full", "a")
    for attempt in (lambda: log.append(train(1)), log.sync):
        with pytest.raises(UserError, match="cannot be written"):
            attempt()
        log._file = whole  # there is room again


DOCUMENTED = {
    "recipe": "inception_x5", "scale": "cpu", "seed": 3, "data": "tiny_imagenet", "classes": 100,
    "parameters": 1234, "planned_steps": 500, "status": "diverged", "step": 40,
    "images_seen": 2560, "equivalent_steps": 80.0, "best": {"top1": 0.125, "step": 30},
    "milestones": [{"target": 0.1, "step": 30, "previous_step": 20}],
    "diverged": {"step": 41, "layer": "4e.double_3x3"},
    "started_learning": False, "images_per_second": 12.5, "wall_seconds": 99.0,
    "replaced_images": {"a/b.JPEG": "truncated"}, "unreadable_validation_images": 2,
}  # fmt: skip


def test_the_documented_object_is_read_and_written(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(DOCUMENTED))
    found = read_summary(path)
    assert (found.status, found.milestones) == (RunStatus.diverged, [Milestone(0.1, 30, 20)])
    found.write(path)
    assert json.loads(path.read_text()) == DOCUMENTED


def test_a_file_with_only_the_essential_keys_is_read(tmp_path):
    extra = {"data", "classes", "parameters", "planned_steps", "equivalent_steps", "best"}
    values = {key: value for key, value in DOCUMENTED.items() if key not in extra}
    (tmp_path / "summary.json").write_text(json.dumps(values | {"of_a_newer_version": 1}))
    found = read_summary(tmp_path / "summary.json")
    assert (found.step, found.best, found.classes) == (40, None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"status": "done"}, "expected one of running, finished, interrupted, diverged"),
        ({"seed": "1"}, "'seed' is '1'; expected an integer"),
        ({"seed": True}, "'seed' is True"),
        ({"step": -1}, "'step' is -1; expected an integer of 0 or more"),
        ({"best": {"top1": 72.2, "step": 1}}, "'top1' is 72.2; expected a fraction"),
        ({"best": 0.5}, "'best' is 0.5"),
        ({"milestones": [0.5]}, "'milestones'[0] is 0.5"),
        ({"started_learning": None}, "'started_learning' is None"),
        ({"replaced_images": {"a": 1}}, "'a'] is 1; expected text"),
        *(({key: ...}, f"{key!r} is missing") for key in ("recipe", "status", "milestones")),
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"seed": 1e999}', "1e999 is out of range"),
        (b'{"seed": ' + 400 * b"9" + b"}", "999 is out of range"),
        (9000 * b"[", "nested too deep"),
        (b"[]", "not an object"),
        (b"\xff\xfe", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, message):
    path = tmp_path / "summary.json"
    if isinstance(content, dict):
        values = {**DOCUMENTED, **content}
        content = json.dumps({k: v for k, v in values.items() if v is not ...}).encode()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_summary(path)
    assert str(path) in str(error.value) and message in str(error.value)
    assert "\n" not in str(error.value)


accuracies = st.lists(st.integers(0, 50).map(lambda correct: correct / 50), max_size=30)
targets_sets = st.sets(st.integers(1, 50).map(lambda correct: correct / 50), max_size=6)


@given(curve=accuracies, targets=targets_sets, spacing=st.integers(1, 1000))
def test_a_milestone_is_the_first_evaluation_at_or_above_and_the_one_before(
    curve, targets, spacing
):
    summary = Summary("bn_x5", "demo", 0, milestones=milestones(targets))
    for number, top1 in enumerate(curve, start=1):
        summary.observe(number * spacing, top1, (number - 1) * spacing)
    for milestone, target in zip(summary.milestones, sorted(targets), strict=True):
        reached = [number for number, top1 in enumerate(curve, start=1) if top1 >= target]
        steps = (reached[0] * spacing, (reached[0] - 1) * spacing) if reached else (None, None)
        assert milestone == Milestone(target, *steps)
    best = summary.best
    assert best == (Best(max(curve), (curve.index(max(curve)) + 1) * spacing) if curve else None)


@pytest.mark.parametrize("targets", [[0.0], [-0.1], [1.1], [72.2], [float("nan")], [0.2, 0.2]])
def test_bad_targets_are_refused(targets):
    with pytest.raises(UserError, match="milestones: "):
        milestones(targets)
