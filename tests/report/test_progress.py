import json
import os

import pytest

from bn_inception.cli.main import dispatch
from bn_inception.errors import UserError
from bn_inception.record import RunStatus
from bn_inception.report.progress import HEADER, read_progress


def test_runs_stand_as_their_folders_say(make_run, capsys):
    others = {"status": RunStatus.running, "planned_steps": 1000}
    going = make_run("going", "bn_x5", [0.1, 0.2], training=[0.1, 0.2], **others).path
    make_run("x" * 60 + "-seed1", "inception", [0.1], planned_steps=31_000_000)
    make_run("stopped", "inception", [], status=RunStatus.interrupted)
    # The record is ahead of the summary, and its last line is being written.
    lines = (going / "metrics.jsonl").read_text().splitlines()
    ahead = {**json.loads(lines[-2]), "step": 300, "images_per_second": 32.0}
    (going / "metrics.jsonl").write_text("\n".join([*lines, json.dumps(ahead), '{"kind": "tr']))
    written = os.stat(going / "metrics.jsonl").st_mtime
    root = going.parent
    first, second, third = read_progress(root, written + 100)
    assert (first.state, first.step, first.planned) == ("running", 300, 1000)
    # 700 updates of 32 images at 32 images a second, 100 of them gone by.
    assert first.ends.timestamp() == pytest.approx(written + 700)
    assert (second.state, second.best, second.ends) == ("interrupted", None, None)
    assert third.line().startswith("xxxx") and "…xxxx-seed1 finished" in third.line()
    (silent, *_) = read_progress(root, written + 7500)
    assert silent.state == "silent 2:05" and silent.ends is None
    assert [one.name for one in read_progress(going)] == ["going"]
    assert dispatch(["runs", str(root)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == HEADER and len(out) == 4 and all(len(line) <= 80 for line in out)


def test_watching_shows_the_runs_again(make_run, capsys, monkeypatch):
    root = make_run("plain", "inception", [0.1]).path.parent
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        dispatch(["runs", str(root), "--watch"])
    assert capsys.readouterr().out.count("\nplain ") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["."], r"\.: no run in it"),
    ],
)
def test_bad_input(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        dispatch(["runs", *words])
