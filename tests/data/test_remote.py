"""Shards by URL: the same images as from a folder, through a small cache, over a bad network."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_server import ShardServer
from small_runs import TINY, write_images

from bn_inception.cli.main import dispatch
from bn_inception.data import remote
from bn_inception.data.audit import audit
from bn_inception.data.loader import training_batches, validation_batches
from bn_inception.data.order import TrainingOrder, stored_order
from bn_inception.data.photometric import AugmentationConfig, Photometric
from bn_inception.data.prepare import PrepareConfig, prepare
from bn_inception.data.source import (
    DataConfig,
    DataKind,
    OnError,
    Sources,
    open_sources,
    order_warnings,
)
from bn_inception.errors import UserError
from bn_inception.network import checkpoint

pytest.importorskip("aiohttp", reason="needs bn-inception[remote]")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs fork"),
    pytest.mark.timeout(120),
]
GIB = 1 << 30
SHARD = 6  # images


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 training images in 10 shards, 15 held-out ones in 3; read only."""
    folder = tmp_path_factory.mktemp("remote")
    images = write_images(folder / "images", train=20)
    prepare(
        PrepareConfig(str(images), str(folder / "shards"), workers=0, shard_size=SHARD),
        lambda line: None,
        lambda what, done, total: None,
    )
    return folder / "shards"


@pytest.fixture
def server(shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShardServer]:
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.02, 0.02))
    with ShardServer(shards).running() as running:
        yield running


def sizes(shards: Path, split: str) -> list[int]:
    return [path.stat().st_size for path in sorted(shards.glob(f"{split}-*.tar"))]


def opened(root: object, tmp_path: Path, cache: float = GIB, **values: Any) -> Sources:
    given = {"cache": str(tmp_path / "cache"), "cache_gib": cache / GIB, **values}
    return open_sources(DataConfig(kind=DataKind.shards, root=str(root), **given))


def read(
    sources: Sources,
    start: int = 0,
    stop: int = 12,
    workers: int = 0,
    size: int = SHARD,
    on_error: OnError = OnError.fail,
    places: slice = slice(None),
) -> Iterator[Any]:
    return training_batches(
        sources.train,
        TrainingOrder(len(sources.train), 4, 5, True, size),
        start_step=start,
        stop_step=stop,
        image_size=16,
        augmentation=AugmentationConfig(Photometric.full),
        seed=5,
        workers=workers,
        on_error=on_error,
        places=places,
    )


def held_out(sources: Sources, workers: int = 0) -> Iterator[Any]:
    return validation_batches(
        sources.validation, image_size=16, batch=4, workers=workers, on_error=OnError.skip
    )


def assert_same(one: Any, other: Any) -> None:
    count = 0
    for first, second in zip(one, other, strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.labels, second.labels)
        assert torch.equal(first[1], second[1])
        count += 1
    assert count


def in_memory(shards: Path) -> str:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in shards.rglob("*"):
        if path.is_file():
            memory.pipe_file(f"/bucket/{path.relative_to(shards)}", path.read_bytes())
    return "memory://bucket"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("protocol", ["memory", "http"])
def test_the_batches_are_those_of_the_folder(
    shards: Path, server: ShardServer, tmp_path: Path, protocol: str, workers: int
) -> None:
    local = opened(shards, tmp_path)
    far = opened(in_memory(shards) if protocol == "memory" else server.url, tmp_path)
    assert far.train.fingerprint() == local.train.fingerprint()
    assert far.validation.fingerprint() == local.validation.fingerprint()
    assert far.train.identity(3) == local.train.identity(3)
    assert "://" in far.train.name(3)
    # Over the end of an epoch, and with workers that start at once.
    assert_same(read(far, 7, 23, workers), read(local, 7, 23))
    assert_same(held_out(far, workers), held_out(local))
    # Once all is here, an opening reads the descriptions and nothing else.
    assert [far.train.read(i) for i in range(60)] == [local.train.read(i) for i in range(60)]
    again = opened(server.url, tmp_path) if protocol == "http" else far
    before = len(server.asked)
    assert_same(read(again, 0, 4), read(local, 0, 4))
    assert not any(name.endswith((".tar", ".npy")) for name in server.asked[before:])


def kept_bytes(cache: Path) -> int:
    found = 0
    for entry in os.scandir(cache / "shards"):
        if entry.name.endswith((".tar", ".part")):
            try:
                found += entry.stat().st_size
            except FileNotFoundError:  # a part that has got its name meanwhile
                continue
    return found


def test_a_small_cache_is_never_over_its_bound(
    shards: Path, server: ShardServer, tmp_path: Path
) -> None:
    limit = sum(sizes(shards, "val")) + 4 * max(sizes(shards, "train"))
    seen: list[int] = []
    server.before = lambda name: seen.append(kept_bytes(tmp_path / "cache"))
    far, local = opened(server.url, tmp_path, limit), opened(shards, tmp_path)
    for one, other in zip(read(far, 0, 60, 0), read(local, 0, 60), strict=True):
        assert torch.equal(one.images, other.images)
        seen.append(kept_bytes(tmp_path / "cache"))
    assert max(seen) <= limit
    assert max(seen) > sum(sizes(shards, "val")) + max(sizes(shards, "train"))
    fetched = [name for name in server.asked if name.endswith(".tar")]
    assert len(fetched) > len(set(fetched))  # some made room, and came again


def test_held_out_shards_stay_whatever_is_read(
    shards: Path, server: ShardServer, tmp_path: Path
) -> None:
    limit = sum(sizes(shards, "val")) + 2 * max(sizes(shards, "train"))
    far, local = opened(server.url, tmp_path, limit), opened(shards, tmp_path)
    for _ in range(2):
        assert_same(held_out(far), held_out(local))
        for index in range(len(far.train)):
            assert far.train.read(index) == local.train.read(index)
    assert_same(held_out(far), held_out(local))
    held = [name for name in server.asked if name.startswith("val-") and name.endswith(".tar")]
    assert len(held) == len(set(held)) == 3


def test_ranks_of_one_machine_share_the_cache(
    shards: Path, server: ShardServer, tmp_path: Path
) -> None:
    order = TrainingOrder(60, 4, 5, True, SHARD)
    steps = 12
    far = opened(server.url, tmp_path)
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            places = slice(2 * rank, 2 * rank + 2)
            batches = read(far, 0, steps, places=places)
            labels = np.concatenate([batch.labels.numpy() for batch in batches])
            wanted = [far.train.labels[order.batch(step)[1][places]] for step in range(steps)]
            os._exit(0 if np.array_equal(labels, np.concatenate(wanted)) else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    fetched = [name for name in server.asked if name.endswith(".tar")]
    # A rank that ends gives up the downloads that it was at.
    assert 8 <= len(fetched) <= len(set(fetched)) + remote.STREAMS


def test_a_resumed_run_fetches_first_what_it_reads_first(
    shards: Path, server: ShardServer, tmp_path: Path
) -> None:
    start = 9
    batches = read(opened(server.url, tmp_path), start, 12)
    next(batches)
    batches.close()
    order = TrainingOrder(60, 4, 5, True, SHARD)
    local: Any = opened(shards, tmp_path).train
    upcoming, soon = remote.ReadingSequence(order, local._shard).upcoming(start, 1)
    first = [name for name in server.asked if name.startswith("train-") and name.endswith(".tar")]
    expected = {f"train-{shard:06d}.tar" for shard in upcoming[: soon + remote.STREAMS]}
    assert set(first[:soon]) <= expected
    assert f"train-{upcoming[0]:06d}.tar" in first


@given(
    images=st.integers(2, 80),
    batch=st.integers(1, 20),
    size=st.integers(1, 30),
    stored=st.integers(1, 30),
    shuffling=st.booleans(),
    step=st.integers(0, 60),
    in_flight=st.integers(1, 40),
)
@settings(max_examples=100)
def test_the_sequence_is_that_of_the_images(
    images: int, batch: int, size: int, stored: int, shuffling: bool, step: int, in_flight: int
) -> None:
    order = TrainingOrder(images, batch, 3, shuffling, size)
    shard = (np.random.default_rng(images).permutation(images) // stored).astype(np.int32)
    upcoming, soon = remote.ReadingSequence(order, shard).upcoming(step, in_flight)
    steps = range(step, step + in_flight + 2 * images // batch + 2)
    touched = [int(shard[index]) for s in steps for index in order.batch(s)[1]]
    assert upcoming == list(dict.fromkeys(touched))
    assert set(upcoming[:soon]) == set(touched[: in_flight * batch])


@pytest.mark.parametrize("step", [0, 20_000_000])
def test_reading_ahead_from_a_late_step_costs_what_it_does_from_the_first(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    permuted = TrainingOrder._permuted

    def counted(self: TrainingOrder, epoch: int) -> Any:
        computed.append(epoch)
        return permuted(self, epoch)

    monkeypatch.setattr(TrainingOrder, "_permuted", counted)
    shard = (np.arange(10_007) // 100).astype(np.int32)
    sequence = remote.ReadingSequence(TrainingOrder(10_007, 32, 1, True, 100), shard)
    for later in range(50):
        sequence.upcoming(step + later, 8)
    epoch = step * 32 // 10_007
    assert computed == [epoch, epoch + 1]


@given(
    images=st.integers(2, 60),
    batch=st.integers(1, 8),
    size=st.integers(1, 30),
    stored=st.integers(1, 30),
    mixed=st.booleans(),
    in_flight=st.integers(1, 10),
)
@settings(max_examples=100)
def test_no_window_of_batches_lies_in_more_than_is_asked_for(
    images: int, batch: int, size: int, stored: int, mixed: bool, in_flight: int
) -> None:
    random = np.random.default_rng(images)
    place = np.empty(images, np.int64)
    place[stored_order(images)] = np.arange(images)
    shard = (random.permutation(images) if mixed else place) // stored
    bytes_of = random.integers(1, 1000, int(shard.max()) + 1)
    needs = remote.Needs.of(shard, bytes_of, size, in_flight * batch)
    order = TrainingOrder(images, batch, 3, True, size)
    for step in range(3 * images // batch + 1):
        window = [order.batch(later)[1] for later in range(step, step + in_flight)]
        assert bytes_of[np.unique(shard[np.concatenate(window)])].sum() <= needs.at_once
    assert needs.at_once <= needs.every == bytes_of[np.unique(shard)].sum()
    if not mixed and size % stored == 0:
        assert needs.epoch == needs.every


FAULTS = ("503", "429", "reset", "cut", "short", "long", "wrong")


def test_a_bad_connection_is_tried_again(shards: Path, server: ShardServer, tmp_path: Path) -> None:
    for number, name in enumerate(sorted(path.name for path in shards.glob("train-*.tar"))):
        server.faults[name] = [FAULTS[number % len(FAULTS)]] * 2
    server.faults["train.json"] = ["503"]
    server.faults["train.index/label.npy"] = ["cut", "wrong"]
    assert_same(read(opened(server.url, tmp_path), 0, 15), read(opened(shards, tmp_path), 0, 15))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_connection_is_named(server: ShardServer, tmp_path: Path, fault: str) -> None:
    source = opened(server.url, tmp_path).validation
    for number in range(3):
        server.always[f"val-{number:06d}.tar"] = fault
    asked = len(server.asked)
    with pytest.raises(UserError) as caught:
        source.read(0)
    assert len(server.asked) - asked == 4  # one try, and one after each of three pauses
    said = str(caught.value)
    assert "\n" not in said
    assert re.match(
        rf"data\.root: {server.url}/val-00000\d\.tar cannot be read after 4 tries", said
    )
    assert "run.resume=true" in said
    if fault == "503":
        assert "503" in said
    if fault == "wrong":
        assert "another SHA-256" in said
    assert not [n for n in os.listdir(tmp_path / "cache" / "shards") if n.endswith(".part")]
    server.always.clear()
    assert source.read(0)


@pytest.mark.parametrize(("fault", "named"), [("404", "does not exist"), ("403", "403")])
def test_what_will_not_come_is_asked_for_once(
    server: ShardServer, tmp_path: Path, fault: str, named: str
) -> None:
    source = opened(server.url, tmp_path).validation
    for number in range(3):
        server.always[f"val-{number:06d}.tar"] = fault
    asked = len(server.asked)
    with pytest.raises(UserError, match=named):
        source.read(0)
    assert len(server.asked) - asked == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_connection_is_no_unreadable_image(
    server: ShardServer, tmp_path: Path, workers: int
) -> None:
    far = opened(server.url, tmp_path)
    for split, count in (("train", 10), ("val", 3)):
        for number in range(count):
            server.always[f"{split}-{number:06d}.tar"] = "503"
    with pytest.raises(UserError, match=r"train-.*after 4 tries") as caught:
        next(read(far, workers=workers, on_error=OnError.skip))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"val-.*after 4 tries") as caught:
        next(held_out(far, workers))
    assert "\n" not in str(caught.value)


def test_a_damaged_file_in_the_cache_is_fetched_again(
    shards: Path, server: ShardServer, tmp_path: Path
) -> None:
    far, local = opened(server.url, tmp_path), opened(shards, tmp_path)
    assert_same(held_out(far), held_out(local))
    for path in (tmp_path / "cache" / "shards").glob("val-*.tar"):
        os.truncate(path, 100)
    assert_same(held_out(far), held_out(local))


def test_shards_made_anew_at_the_same_url_are_others(
    shards: Path, server: ShardServer, tmp_path: Path
) -> None:
    old = opened(server.url, tmp_path).validation.read(0)
    images = write_images(tmp_path / "images", train=3, val=7)
    prepare(
        PrepareConfig(str(images), str(tmp_path / "shards"), workers=0, shard_size=SHARD),
        lambda line: None,
        lambda what, done, total: None,
    )
    server.folder = tmp_path / "shards"
    far, local = opened(server.url, tmp_path), opened(tmp_path / "shards", tmp_path)
    assert_same(held_out(far), held_out(local))
    assert far.validation.read(0) != old


def needed(message: str) -> float:
    found = re.search(r"set data\.cache_gib=([0-9.]+)", message)
    assert found
    return float(found[1]) * GIB


def test_a_cache_that_is_too_small_names_the_size(
    shards: Path, server: ShardServer, tmp_path: Path
) -> None:
    val, train = sum(sizes(shards, "val")), sizes(shards, "train")
    with pytest.raises(UserError, match=r"data\.cache_gib: .*held-out") as caught:
        opened(server.url, tmp_path, val + max(train) - 1)
    enough = needed(str(caught.value))
    assert val + max(train) <= enough <= 1.01 * (val + max(train))
    far = opened(server.url, tmp_path, enough)
    with pytest.raises(UserError, match=r"order\.shard_size=6, and") as caught:
        next(read(far))  # a batch straddles two shards
    enough = needed(str(caught.value))
    assert enough <= 1.01 * (val + sum(sorted(train)[-2:]))
    far = opened(server.url, tmp_path, enough)
    assert_same(read(far, 0, 30), read(opened(shards, tmp_path), 0, 30))


def test_an_order_that_reads_many_shards_at_once_is_refused(
    shards: Path, server: ShardServer, tmp_path: Path
) -> None:
    val, train = sum(sizes(shards, "val")), sizes(shards, "train")
    far = opened(server.url, tmp_path, val + 5 * max(train))
    assert order_warnings(far.train, SHARD, 4) == []
    with pytest.raises(UserError, match=r"shard_size=1251, and.*or order\.shard_size=6 \(as"):
        order_warnings(far.train, 1251, 4)
    # Two stored shards to one of the order's: a wider window, nothing is fetched twice.
    assert order_warnings(far.train, 2 * SHARD, 4) == []
    (said,) = order_warnings(far.train, 4, 1)
    assert re.search(r"fetches every shard 2\.0 times.*order\.shard_size=4 is no multiple", said)
    assert order_warnings(opened(server.url, tmp_path).train, 4, 1) == []  # all fit
    # The first classes lie in all shards, wherever their order's shards lie.
    with pytest.raises(UserError, match="read at once"):
        order_warnings(
            opened(server.url, tmp_path, val + 5 * max(train), first_classes=2).train, 6, 4
        )
    assert order_warnings(opened(shards, tmp_path).train, 1251, 4) == []


def test_what_is_missing_is_named(
    shards: Path, server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"has no train\.json: no finished shards"):
        opened(f"{server.url}/elsewhere", tmp_path)
    with pytest.raises(UserError, match=r"data\.root: nothing://x.*Protocol not known: nothing"):
        opened("nothing://x", tmp_path)
    if find_spec("s3fs") is None:
        with pytest.raises(UserError, match=r"s3://bucket/x.*bn-inception\[remote\].*s3fs"):
            opened("s3://bucket/x", tmp_path)
    with pytest.raises(UserError, match="only data=shards reads a URL"):
        open_sources(DataConfig(kind=DataKind.folder, root=server.url))
    with pytest.raises(UserError, match="audit reads a folder"):
        audit(DataConfig(kind=DataKind.shards, root=server.url), lambda *words: None)
    with pytest.raises(UserError, match=r"data\.cache_gib: 0"):
        DataConfig(cache_gib=0)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(UserError, match=r"127\.0\.0\.1.*install bn-inception\[remote\]") as caught:
        opened(server.url, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [{"shard_sha256": ["../../x"] * 10}, {"shard_bytes": ["1"] * 10}, {"index_sha256": {}}],
)
def test_a_description_is_not_trusted(
    shards: Path, tmp_path: Path, server: ShardServer, values: dict[str, Any]
) -> None:
    shutil.copytree(shards, tmp_path / "bad")
    description = tmp_path / "bad" / "train.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | values))
    server.folder = tmp_path / "bad"
    with pytest.raises(UserError, match=r"train\.json is damaged"):
        opened(server.url, tmp_path)


class Runs:
    """Training runs of some steps, on shards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def train(self, name: str, root: object, *more: str) -> int:
        return dispatch(
            ["train", "recipe=bn_baseline", *TINY, "data=shards", f"order.shard_size={SHARD}",
             f"run.root={self.folder}", f"run.name={name}", f"data.root={root}",
             f"data.cache={self.folder}/cache", *more]
        )  # fmt: skip

    def state(self, name: str) -> dict[str, Any]:
        return checkpoint.load(self.folder / name / "checkpoints" / "last.pt")

    def lines(self, name: str) -> list[dict[str, Any]]:
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        return [{**json.loads(line), "images_per_second": None} for line in lines]

    def assert_equal(self, one: str, other: str) -> None:
        first, second = self.state(one), self.state(other)
        assert first["step"] == second["step"]
        for name, tensor in first["network"].items():
            assert torch.equal(tensor, second["network"][name]), name
        assert self.lines(one) == self.lines(other)


def test_a_run_over_the_network_is_the_local_one_bit_for_bit(
    shards: Path, server: ShardServer, tmp_path: Path
) -> None:
    runs = Runs(tmp_path)
    assert runs.train("local", shards) == 0
    # Room for the shards of training's batches, and of those that Algorithm 2 reads.
    room = sum(sizes(shards, "val")) + 8 * max(sizes(shards, "train"))
    small = f"data.cache_gib={room / GIB:.9f}"

    # The network breaks after some shards, for good: the run ends, saved, and says why.
    def breaks(name: str) -> None:
        if sum(asked.startswith("train-") for asked in server.asked) >= 6:
            for number in range(10):
                server.always[f"train-{number:06d}.tar"] = "503"

    server.before = breaks
    with pytest.raises(UserError, match=rf"{server.url}/train-.*503.*run\.resume=true"):
        runs.train("far", server.url, small)
    assert 0 < runs.state("far")["step"] < 12
    server.before = lambda name: None
    server.always.clear()
    assert runs.train("far", server.url, small, "run.resume=true") == 0
    runs.assert_equal("far", "local")
    assert dispatch(["evaluate", f"run={tmp_path / 'far'}", "data.workers=0"]) == 0
