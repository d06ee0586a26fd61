import json

import pytest
from report.conftest import evaluation_json

from bn_inception.errors import UserError
from bn_inception.report import read_run, read_saved


def test_evaluations_lie_beside_the_run(make_run, add_evaluation):
    run = make_run("a", "bn_x30", [0.1])
    assert read_run(run).evaluations == ()
    add_evaluation(run, "single", 0.3)
    add_evaluation(run, "144", 0.2, statistics=None)
    (run / "evaluation" / "notes.json").write_text('{"something": "else"}')
    multi, single = read_run(run).evaluations
    assert (single.crops, single.top5_error, single.statistics) == ("single", 0.3, "population")
    assert (multi.crops, multi.statistics) == ("144", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top5_error": 1.5}, "'top5_error' is 1.5"),
        ({"top5_interval": [0.1]}, "'top5_interval' is .*expected 2 numbers"),
        ({"models": True}, "'models' is True"),
    ],
)
def test_broken_ones_are_named(tmp_path, change, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**json.loads(evaluation_json("144", 0.2)), **change}))
    with pytest.raises(UserError, match=f"a.json: {message}"):
        read_saved(path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[]", None])
def test_unreadable_ones_are_named(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: "):
        read_saved(path)
