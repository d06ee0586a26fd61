import json
import os
from datetime import datetime

import pytest
from report.conftest import write_run

from bn_inception.cli.main import dispatch
from bn_inception.record.summary import RunStatus
from bn_inception.report.progress import progress


def test_runs_stand_as_their_folders_say(tmp_path, capsys, monkeypatch):
    others = {"status": RunStatus.running, "planned_steps": 1000}
    going = write_run(tmp_path / "going", "bn_x5", [0.1, 0.2], training=[0.1, 0.2], **others)
    write_run(tmp_path / f"{'x' * 60}-seed1", "inception", [0.1], planned_steps=31_000_000)
    write_run(tmp_path / "stopped", "inception", [], status=RunStatus.interrupted)
    # The record is ahead of the summary, and its last line is being written.
    lines = (going / "metrics.jsonl").read_text().splitlines()
    ahead = {**json.loads(lines[-2]), "step": 300, "images_per_second": 32.0}
    (going / "metrics.jsonl").write_text("\n".join([*lines, json.dumps(ahead), '{"kind": "tr']))
    # 700 updates of 32 images at 32 images a second, 100 of them gone by.
    os.utime(going / "metrics.jsonl", (0, 0))
    end = f"{datetime.fromtimestamp(700):%d %b %H:%M}"
    monkeypatch.setattr("time.time", lambda: 100.0)
    assert progress(tmp_path).rows == [
        ("going", "running", "300/1,000", "-", "32/s", end),
        ("stopped", "interrupted", "0/?", "-", "-", ""),
        (f"{'x' * 9}…{'x' * 2}-seed1", "finished", "100/31.00M", "-", "-", ""),
    ]
    monkeypatch.setattr("time.time", lambda: 7500.0)
    assert progress(going).rows == [("going", "silent 2:05", "300/1,000", "-", "32/s", "")]
    assert dispatch(["runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 5 and all(len(line) <= 80 for line in out)


def test_watching_shows_the_runs_again(tmp_path, capsys, monkeypatch):
    write_run(tmp_path / "plain", "inception", [0.1])
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        dispatch(["runs", str(tmp_path), "--watch"])
    assert capsys.readouterr().out.count("\nplain ") == 2
