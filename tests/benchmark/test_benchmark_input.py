"""`benchmark input`: the same images for every way, ratios within a round, peers named."""

import itertools
import json
import multiprocessing
import os
import statistics
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_inception.benchmark import ways as ways_module
from bn_inception.benchmark.aside import Aside, Failed, NotInstalled
from bn_inception.benchmark.input import (
    InputBenchmark,
    Taken,
    copied,
    rows_of,
    sentences,
    turns,
)
from bn_inception.benchmark.peers import all_peers
from bn_inception.benchmark.peers.ours import LOADER_FULL
from bn_inception.benchmark.peers.reference import REFERENCE, REFERENCE_FULL
from bn_inception.benchmark.rows import InputRow
from bn_inception.benchmark.ways import Images, Peer, Stream, Way, rate, timed_batches
from bn_inception.cli.main import main
from bn_inception.data import DataConfig, DataKind, OnError, open_sources
from bn_inception.data.prepare import PrepareConfig, prepare
from bn_inception.errors import UserError
from bn_inception.training.settings import Device

PEERS = all_peers(Device.cpu, "CPU")
WAYS = [way for peer in PEERS for way in peer.ways]
MODULES = {"timm": "timm", "webdataset": "webdataset", "nvidia-dali-cuda120": "nvidia.dali"}
ABSENT = [way.name for peer in PEERS if (*peer.packages, "")[0] in MODULES for way in peer.ways]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks from a large process")


def quiet(*_: object) -> None:
    """Nothing is said."""


def some(root: Path, folder: Path, **given: int) -> Images:
    folder.mkdir(exist_ok=True)
    source = open_sources(DataConfig(DataKind.folder, str(root))).train
    config = InputBenchmark(**{"images": 20, "image_size": 16, **given})
    return copied(source, OnError.fail, config, 2, folder, quiet).images


def test_the_command_end_to_end(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for module in ("timm", "webdataset", "nvidia.dali"):
        monkeypatch.setitem(sys.modules, module, None)  # as if not installed
    before = multiprocessing.active_children()
    output = tmp_path / "input.json"
    with pytest.raises(SystemExit) as caught:
        main(
            [
                *("benchmark", "input", f"data.root={images}", f"output={output}"),
                *("benchmark.images=20", "benchmark.rounds=2", "benchmark.workers=[1,0]"),
                *("benchmark.image_size=16", "benchmark.device=cpu"),
                "benchmark.step_images_per_second=5",
            ]
        )
    assert caught.value.code == 0
    assert multiprocessing.active_children() == before
    assert not list(tmp_path.glob("bn-inception-*"))  # the copies are gone

    written = json.loads(output.read_text())
    rows = written["rows"]
    assert [(row["name"], row["workers"]) for row in rows] == [
        (way.name, workers) for way in WAYS for workers in (0, 1)
    ]
    assert set(rows[0]) == {"name", "workers", "images_per_second", "ratio_to_reference", "note"}
    for row in rows:
        if row["name"] in ABSENT:
            assert row["images_per_second"] is row["ratio_to_reference"] is None
            assert row["note"].startswith("not installed: pip install ")
        else:
            assert row["images_per_second"] > 0 and row["ratio_to_reference"] > 0
        if row["name"] in (REFERENCE, REFERENCE_FULL):
            assert row["ratio_to_reference"] == 1
        elif "full" in row["name"] and row["name"] not in ABSENT:
            assert "the reference with full ColorJitter" in row["note"]
    assert written["settings"]["images"] == 20 and written["settings"]["batch"] == 32
    assert written["cpu"]["cores"] and {"torch", "timm", "webdataset"} <= set(written["versions"])
    assert str(images) not in output.read_text()

    out, err = capsys.readouterr()
    for package in ("timm", "webdataset", "nvidia-dali-cuda120"):
        assert f"not installed: pip install {package}" in err
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows)
    for sentence in written["sentences"]:
        assert sentence in out
    assert "it waits for training" in out


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["benchmark.images=0"], ["benchmark.images", "0"]),
        (["benchmark.rounds=0"], ["benchmark.rounds", "0"]),
        (["benchmark.workers=[]"], ["benchmark.workers", "[0,1,4]"]),
        (["benchmark.workers=[-1,2]"], ["benchmark.workers", "-1"]),
        (["benchmark.workers=many"], ["benchmark.workers", "many"]),
        (["benchmark.step_images_per_second=-5"], ["benchmark.step_images_per_second", "-5"]),
        (["benchmark.device=gpu"], ["benchmark.device", "auto, cpu, cuda"]),
        (["benchmark.round=3"], ["benchmark.round", "benchmark.rounds", "bn-inception benchmark"]),
        (["data.workers=3"], ["data.workers", "benchmark.workers=[3]"]),
        (["data.backend=pillow"], ["data.backend: pillow", "leave it out"]),
        (["output=/nowhere/at/all.json"], ["output", "/nowhere/at"]),
        (["output=."], ["output", ". is a folder"]),
        (["photos"], ["photos", "key=value"]),
        (["data.root=/nowhere/images"], ["data.root", "/nowhere/images"]),
        (["data=synthetic"], ["data.root", "synthetic"]),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    given: list[str],
    named: list[str],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        main(["benchmark", "input", f"data.root={images}", *given])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("bn-inception: ") and err.count("\n") == 1
    for word in named:
        assert word in err
    assert list(tmp_path.iterdir()) == []


def test_every_way_has_the_same_images(images: Path, tmp_path: Path) -> None:
    given = some(images, tmp_path)
    read = sorted(given.source.read(index) for index in range(len(given.source)))
    assert len(read) == 20 and len(set(read)) == 20
    files = sorted(Path(given.folder).rglob("*.jpg"))
    assert sorted(file.read_bytes() for file in files) == read
    for file in files:
        index = int(file.stem)
        assert file.read_bytes() == given.source.read(index)
        assert int(file.parent.name) == given.source.labels[index]
    members = {}
    for shard in given.shards:
        with tarfile.open(shard) as tar:
            here = {member.name: tar.extractfile(member).read() for member in tar}
        assert here  # webdataset takes an empty one for an error
        members |= here
    assert sorted(members[name] for name in members if name.endswith(".jpg")) == read
    for name in members:
        if name.endswith(".cls"):
            assert int(members[name]) == given.source.labels[int(name.removesuffix(".cls"))]
    assert given.timed == 20
    assert some(images, tmp_path / "many", images=1000).timed == 1000  # the same ones again
    few = some(images, tmp_path / "few", images=3)
    assert len(few.shards) == 3  # as many as hold something


def test_shards_are_measured_like_the_folder_they_were_made_of(
    images: Path, tmp_path: Path
) -> None:
    prepare(PrepareConfig(str(images), str(tmp_path / "shards"), workers=0), quiet, quiet)
    source = open_sources(DataConfig(DataKind.shards, str(tmp_path / "shards"))).train
    config = InputBenchmark(images=9, image_size=16)
    (tmp_path / "b").mkdir()
    from_shards = copied(source, OnError.fail, config, 1, tmp_path / "b", quiet).images
    from_folder = some(images, tmp_path / "a", images=9)
    assert from_shards.source.fingerprint() == from_folder.source.fingerprint()
    copies = [
        sorted(file.read_bytes() for file in Path(given.folder).rglob("*.jpg"))
        for given in (from_shards, from_folder)
    ]
    assert copies[0] == copies[1]


def test_an_image_that_cannot_be_read(images: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split in ("train", "val"):
        for label in ("n0000", "n0001"):
            (root / split / label).mkdir(parents=True)
            for name in ("0.JPEG", "1.JPEG"):
                data = (images / "train" / label / name).read_bytes()
                (root / split / label / name).write_bytes(data)
    damaged = root / "train" / "n0001" / "1.JPEG"
    damaged.write_bytes(b"no image")
    source = open_sources(DataConfig(DataKind.folder, str(root))).train
    config = InputBenchmark(images=20, image_size=16)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match=r"1\.JPEG cannot be read"):
        copied(source, OnError.fail, config, 1, tmp_path / "a", quiet)
    result = copied(source, OnError.skip, config, 1, tmp_path / "b", quiet)
    assert len(result.images.source) == 3 and len(result.skipped) == 1
    assert str(damaged) in result.skipped[0]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("peer", PEERS[2:], ids=lambda peer: peer.packages[0])
def test_every_installed_peer_delivers(
    images: Path, tmp_path: Path, peer: Peer, workers: int
) -> None:
    pytest.importorskip(MODULES[peer.packages[0]])
    given = some(images, tmp_path)
    with Aside() as side:
        for way in peer.ways:
            assert side.ask(rate, way, given, workers, 0) > 0


@given(
    st.integers(1, 5),
    st.lists(st.integers(0, 64), min_size=1, max_size=5, unique=True),
    st.integers(1, 6),
)
def test_turns_are_interleaved(ways: int, counts: list[int], rounds: int) -> None:
    named = [replace(WAYS[0], name=str(number)) for number in range(ways)]
    order = [(number, workers, way.name) for number, workers, way in turns(named, counts, rounds)]
    expected = {(workers, way.name) for workers in counts for way in named}
    for number in range(rounds):
        here = order[number * len(expected) : (number + 1) * len(expected)]
        assert {place for place, _, _ in here} == {number}  # a round ends before the next begins
        assert {(workers, name) for _, workers, name in here} == expected
        # The ways with one number of workers, the reference among them, follow each other.
        assert len(list(itertools.groupby(here, key=lambda turn: turn[1]))) == len(counts)
    if rounds > 1 and ways > 1:
        assert order[0][2] != order[len(expected)][2]


RATE = st.one_of(st.none(), st.floats(1, 1e4))


@given(st.data(), st.integers(1, 5))
def test_a_ratio_is_the_median_of_ratios_within_rounds(data: st.DataObject, rounds: int) -> None:
    counts = [0, 2]
    taken = Taken(
        {
            (way.name, workers): data.draw(st.lists(RATE, min_size=rounds, max_size=rounds))
            for way in WAYS
            for workers in counts
        }
    )
    rows = {(row.name, row.workers): row for row in rows_of(WAYS, counts, taken)}
    assert len(rows) == len(WAYS) * len(counts)
    for way in WAYS:
        reference = REFERENCE_FULL if way.distorted else REFERENCE
        for workers in counts:
            own, other = taken.rates[way.name, workers], taken.rates[reference, workers]
            row = rows[way.name, workers]
            known = [value for value in own if value is not None]
            assert row.images_per_second == (statistics.median(known) if known else None)
            ratios = [a / b for a, b in zip(own, other, strict=True) if a and b]
            assert row.ratio_to_reference == (statistics.median(ratios) if ratios else None)
            if way.distorted and way.name != REFERENCE_FULL:
                assert "full ColorJitter" in row.note


def test_a_machine_that_slows_down_changes_no_ratio() -> None:
    slow = [1.0, 0.5, 0.1]
    taken = Taken(
        {
            (way.name, 1): [100.0 * (place + 1) * factor for factor in slow]
            for place, way in enumerate(WAYS)
        }
    )
    even = Taken({key: [values[0]] * 3 for key, values in taken.rates.items()})
    for one, other in zip(rows_of(WAYS, [1], taken), rows_of(WAYS, [1], even), strict=True):
        assert one.ratio_to_reference == pytest.approx(other.ratio_to_reference)


@given(st.integers(0, 70), st.integers(1, 5000))
def test_the_clock_sees_whole_turns_of_all_workers(workers: int, timed: int) -> None:
    images = Images(None, "", (), 16, 32, timed)  # type: ignore[arg-type]
    batches = timed_batches(images, workers)
    assert batches % max(1, workers) == 0
    assert batches * 32 >= timed > (batches - max(1, workers)) * 32


@given(st.integers(0, 5), st.floats(0.01, 10), st.floats(0, 100))
def test_the_start_is_not_timed(workers: int, seconds: float, start: float) -> None:
    clock = [0.0]

    def stream(images: Images, count: int, seed: int) -> Stream:
        clock[0] += start
        while True:
            clock[0] += seconds
            yield images.batch

    images = Images(None, "", (), 16, 32, 320)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ways_module.time, "perf_counter", lambda: clock[0])
        assert rate(Way("fake", stream), images, workers, 0) == pytest.approx(32 / seconds)


@given(
    st.dictionaries(st.integers(0, 64), st.floats(1, 5000), min_size=1, max_size=6),
    st.floats(1, 9000),
    st.integers(0, 16),
)
def test_what_training_needs_and_which_side_waits(
    rates: dict[int, float], step: float, default: int
) -> None:
    rows = [InputRow(LOADER_FULL, workers, found, 2.0) for workers, found in rates.items()]
    said = sentences(
        rows, frozenset({LOADER_FULL}), machine_cores=8, default=default, step_rate=step
    )
    needs, waits = said[-2:]
    enough = [workers for workers, found in rates.items() if found >= step]
    if enough:
        needed = f"{min(enough)} worker" if min(enough) else "no worker process"
        assert f"needs {needed}" in needs and "measured" in needs
    else:
        assert "extrapolated" in needs and "8 cores" in needs
    judged = rates[default if default in rates else max(rates)]
    assert ("training waits for images" in waits) == (judged < step)
    assert ("it waits for training" in waits) == (judged >= step)


def test_without_a_rate_of_training_nothing_is_claimed() -> None:
    rows = [InputRow(LOADER_FULL, 1, 100.0, 2.0)]
    said = sentences(rows, frozenset({LOADER_FULL}), machine_cores=2, default=1, step_rate=None)
    assert "benchmark.step_images_per_second=N" in said[-1]
    assert not any("wait" in sentence for sentence in said)


def _say(what: str) -> str:
    if what == "bad":
        raise UserError("a bad image")
    if what == "missing":
        import no_such_package_anywhere  # noqa: F401
    if what == "broken":
        raise KeyError("x")
    if what == "dies":
        os._exit(3)
    return what


def test_a_process_aside_answers_or_says_why_not() -> None:
    with Aside() as side, Aside() as other:
        assert side.ask(_say, "well") == "well"
        with pytest.raises(UserError, match="a bad image"):
            side.ask(_say, "bad")
        with pytest.raises(NotInstalled, match="no_such_package_anywhere"):
            side.ask(_say, "missing")
        with pytest.raises(Failed, match="KeyError"):
            side.ask(_say, "broken")
        with pytest.raises(Failed, match="died"):
            side.ask(_say, "dies")
        assert other.ask(_say, "still here") == "still here"
        assert other.ask(time.process_time) < other.ask(time.monotonic)
