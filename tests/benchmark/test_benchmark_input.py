"""`benchmark input`: the same images for every way, ratios to torchvision's recipe, who waits."""

import itertools
import json
import multiprocessing
import statistics
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import write_images

from bn_inception.benchmark import timing
from bn_inception.benchmark.input import FULL, Chosen, ways_of
from bn_inception.benchmark.timing import CPU, Way, take_turn
from bn_inception.cli.main import dispatch
from bn_inception.data import DataConfig, DataKind, open_sources
from bn_inception.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks from a large process")
NAMES = [
    "reading alone", "decoding alone (Pillow)", "bn-inception",
    "bn-inception, data.backend=pillow", "bn-inception, full distortion",
    "torchvision reference", "torchvision reference, full ColorJitter",
]  # fmt: skip


def some(root):
    return Chosen(open_sources(DataConfig(DataKind.folder, str(root))).train, 20)


def test_the_command_end_to_end(images, tmp_path, capsys):
    before, threads = set(multiprocessing.active_children()), torch.get_num_threads()
    output = tmp_path / "input.json"
    given = [f"data.root={images}", f"output={output}", "benchmark.images=20"]
    given += ["benchmark.rounds=2", "benchmark.workers=[1,0]", "benchmark.image_size=16"]
    assert dispatch(["benchmark", "input", *given]) == 0
    assert set(multiprocessing.active_children()) <= before
    assert torch.get_num_threads() == threads
    written = json.loads(output.read_text())
    rows = written["rows"]
    assert [(row["name"], row["workers"]) for row in rows] == [
        (name, workers) for workers in (0, 1) for name in NAMES
    ]
    for row in rows:
        assert row["images_per_second"] > 0 and row["ratio_to_reference"] > 0
        if row["name"].startswith("torchvision"):
            assert row["ratio_to_reference"] == 1
        assert ("with full ColorJitter" in row["note"]) == row["name"].endswith(FULL)
    assert written["settings"]["images"] == 20 and written["settings"]["batch"] == 32
    assert written["cpu"]["cores"] and written["versions"]["torchvision"]
    assert str(images) not in output.read_text()
    *printed, path = capsys.readouterr().out.splitlines()
    assert path == str(output) and max(map(len, printed)) <= 80
    assert [line for line in printed if line in NAMES] == [row["name"] for row in rows]


def test_every_way_reads_every_chosen_image(images, monkeypatch):
    chosen = some(images)
    paths = {Path(chosen.name(index)) for index in range(len(chosen))}
    assert len(paths) == 20 and len({path.parent for path in paths}) == 3  # spread evenly
    seen: list[int] = []
    read = Chosen.read
    monkeypatch.setattr(Chosen, "read", lambda self, i: (seen.append(i), read(self, i))[1])
    for way in ways_of(chosen, 16, 0):
        seen.clear()
        take_turn(way, CPU, units=1)
        assert set(seen) == set(range(20)), way.name  # a batch of 32: once around and more


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    root = write_images(tmp_path, train=1)
    (root / "train" / "n0001" / "0.JPEG").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"n0001/0\.JPEG cannot be read"):
        some(root)


@given(st.lists(st.tuples(st.floats(0.01, 1e3), st.floats(1, 100)), min_size=1, max_size=5))
def test_a_ratio_is_the_median_of_ratios_within_rounds(rounds):
    """A round on a machine that is `slow` times as slow changes no ratio."""
    own = Way("", lambda: iter(()), seconds=[each * slow for each, slow in rounds])
    reference = Way("", lambda: iter(()), seconds=[slow for _, slow in rounds])
    ratios = [1 / each for each, _ in rounds]
    assert own.speedup(reference) == pytest.approx(statistics.median(ratios))
    assert Way("", lambda: iter(())).speedup(reference) is None


@pytest.mark.parametrize("untimed", [0, 3])
def test_neither_the_start_nor_the_warm_up_is_timed(untimed, monkeypatch):
    clock, ended = [0.0], []

    def stream():
        clock[0] += 100
        try:
            for number in itertools.count():
                clock[0] += 2 if number >= untimed else 14
                yield number
        finally:
            ended.append(True)

    way = Way("", stream)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    take_turn(way, CPU, untimed=untimed, units=5)
    # With no unit before it, what the stream does first is in the first one.
    assert way.seconds == [2 if untimed else 2 + 100 / 5] and ended == [True]
