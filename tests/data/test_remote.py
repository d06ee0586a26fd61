"""Shards by URL: the same images as from a folder, through a small cache, over a bad network."""

import os
import re
import shutil
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from processes import run_ranks
from samples import assert_same, content, made, training, validation
from small_runs import Runs, write_images

from bn_inception.cli.main import dispatch
from bn_inception.data import DataConfig, DataKind, OnError, open_sources, remote
from bn_inception.errors import UserError

pytest.importorskip("aiohttp", reason="needs bn-inception[remote]")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs fork"),
    pytest.mark.timeout(120),
]
SHARD = 6  # images


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """60 training images in 10 shards, 15 held-out ones in 3; read only."""
    folder = tmp_path_factory.mktemp("remote")
    images = write_images(folder / "images", train=20)
    made(images, folder / "shards", shard_size=SHARD)
    return folder / "shards"


class ShardServer(ThreadingHTTPServer):
    """On loopback; `asked` are the names of the files asked for, `fault` tells what one gets."""

    daemon_threads = True

    def __init__(self, folder, cache):
        super().__init__(("127.0.0.1", 0), Answer)
        self.url, self.folder, self.cache = f"http://127.0.0.1:{self.server_port}", folder, cache
        self.asked: list[str] = []
        self.fault: Callable[[str], str] = lambda name: ""
        self.ended = threading.Event()

    def far(self, url=""):
        return open_sources(DataConfig(DataKind.shards, url or self.url, str(self.cache.parent)))

    def local(self):
        return self.far(str(self.folder))

    def fail(self, start, fault):
        """With every request of a file whose name starts so."""
        self.fault = lambda name: fault if name.startswith(start) else ""


class Answer(BaseHTTPRequestHandler):
    server: ShardServer

    def log_message(self, *words):
        pass

    def do_GET(self):
        name = self.path.lstrip("/")
        self.server.asked.append(name)
        path, fault = self.server.folder / name, self.server.fault(name)
        if fault.isdigit() or not path.is_file():
            self.send_error(int(fault or 404))
        elif fault == "wait":  # says nothing until the client hangs up
            self.server.ended.wait(30)
        elif fault in ("trickle", "endless"):
            self.send_response(200)
            self.end_headers()
            piece, pause = (b"x", 0.05) if fault == "trickle" else (b"x" * 100_000, 0)
            with suppress(OSError):
                while not self.server.ended.wait(pause):
                    self.wfile.write(piece)
        else:
            self.send(path.read_bytes(), fault)

    def send(self, body, fault):
        half, changed = body[: len(body) // 2], bytes([body[0] ^ 1]) + body[1:]
        others = {"wrong": changed, "short": body[:-1], "long": body + b"x"}
        whole = others.get(fault, body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        self.wfile.write(half if fault in ("cut", "reset") else whole)
        if fault == "reset":  # RST instead of FIN
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@pytest.fixture
def server(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.02, 0.02))
    server = ShardServer(shards, tmp_path / "cache" / "shards")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    thread.join()
    server.server_close()


def read(sources, start=0, stop=12, **more):
    return training(sources.train, (start, stop), seed=5, shard=SHARD, **more)


def held_out(sources, workers=0):
    return validation(sources.validation, workers, OnError.skip)


def in_memory(shards):
    import fsspec

    fsspec.filesystem("memory").put(f"{shards}/", "/bucket/", recursive=True)
    return "memory://bucket"


@pytest.mark.parametrize(("protocol", "workers"), [("memory", 0), ("memory", 2), ("http", 2)])
def test_the_batches_are_those_of_the_folder(server, protocol, workers):
    url = in_memory(server.folder) if protocol == "memory" else server.url
    local, far = server.local(), server.far(url)
    assert far.fingerprint == local.fingerprint
    assert far.train.identity(3) == local.train.identity(3)
    assert "://" in far.train.name(3)
    # Over the end of an epoch, and with workers that start at once.
    assert_same(read(far, 7, 23, workers=workers), read(local, 7, 23))
    assert_same(held_out(far, workers), held_out(local))
    # Once all is here, an opening reads the descriptions and nothing else.
    assert [far.train.read(i) for i in range(60)] == [local.train.read(i) for i in range(60)]
    before = len(server.asked)
    assert_same(read(server.far(url)), read(local))
    assert not any(name.endswith((".tar", ".npy")) for name in server.asked[before:])


def test_ranks_of_one_machine_share_the_cache(server):
    far, local = server.far(), server.local()

    def act(rank):
        places = slice(2 * rank, 2 * rank + 2)
        assert_same(read(far, places=places), read(local, places=places))

    assert run_ranks(2, act) == [None, None]
    fetched = [name for name in server.asked if name.endswith(".tar")]
    assert 8 <= len(fetched) == len(set(fetched))  # none by both


FAULTS = ("503", "429", "reset", "cut", "short", "long", "wrong")


def test_a_bad_connection_is_tried_again(server):
    names = sorted(path.name for path in server.folder.glob("train-*.tar"))
    faults = {name: [FAULTS[number % len(FAULTS)]] * 2 for number, name in enumerate(names)}
    faults |= {"train.json": ["503"], "train.index.npy": ["cut", "wrong"]}
    server.fault = lambda name: faults[name].pop() if faults.get(name) else ""
    assert_same(read(server.far(), 0, 15), read(server.local(), 0, 15))
    assert not any(faults.values())


@pytest.mark.parametrize(
    ("fault", "tries", "named"),
    [
        *((fault, 4, "cannot be read after 4 tries") for fault in FAULTS),
        ("503", 4, "503"),
        ("wrong", 4, "another SHA-256"),
        ("404", 1, r"cannot be read \(no such file"),
        ("403", 1, r"cannot be read \(403"),
    ],
)
def test_what_does_not_come_is_named(server, fault, tries, named):
    source = server.far().validation
    server.fail("val-", fault)
    asked, there = len(server.asked), content(server.cache)
    with pytest.raises(UserError, match=named) as caught:
        source.read(0)
    assert len(server.asked) - asked == tries  # one, and one after each of three pauses
    said = str(caught.value)
    assert "\n" not in said and "run.resume=must" in said
    assert re.match(rf"data\.root: {server.url}/val-00000\d\.tar ", said)
    assert {name for name in content(server.cache) if "locks" not in name} <= there.keys()
    server.fail("", "")
    assert source.read(0)


def test_a_broken_connection_is_no_unreadable_image(server):
    far = server.far()
    server.fail("train-", "503")
    with pytest.raises(UserError, match=r"train-.*after 4 tries"):
        next(read(far, workers=1, on_error=OnError.skip))


def test_a_damaged_file_in_the_cache_is_fetched_again(server):
    assert_same(held_out(server.far()), held_out(server.local()))
    for path in server.cache.glob("*.val-*.tar"):
        os.truncate(path, 100)
        path.with_name(f".{path.name}.77.tmp").touch()  # of a process that was killed
    asked = len(server.asked)
    assert_same(held_out(server.far()), held_out(server.local()))
    assert len(server.asked) == asked + 5  # two descriptions and three shards
    assert not list(server.cache.glob(".*.tmp"))


def test_shards_made_anew_at_the_same_url_are_others(server, tmp_path):
    old = server.far().validation.read(0)
    images = write_images(tmp_path / "images", train=3, val=7)
    made(images, tmp_path / "shards", shard_size=SHARD)
    server.folder = tmp_path / "shards"
    far = server.far()
    assert_same(held_out(far), held_out(server.local()))
    assert far.validation.read(0) != old


def test_what_is_missing_is_named(server, monkeypatch):
    with pytest.raises(UserError, match=r"elsewhere/train\.json cannot be read \(no such file"):
        server.far(f"{server.url}/elsewhere")
    with pytest.raises(UserError, match=r"data\.root: nothing://x.*Protocol not known: nothing"):
        server.far("nothing://x")
    with pytest.raises(UserError, match="only data=shards reads a URL"):
        open_sources(DataConfig(DataKind.folder, server.url))
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(UserError, match=r"127.*install .*bn-inception\[remote\].*s3fs.*$"):
        server.far()


def test_a_run_over_the_network_is_the_local_one_bit_for_bit(server, tmp_path):
    given = ["recipe=bn_baseline", "data=shards", f"order.shard_size={SHARD}"]
    runs = Runs(tmp_path, server.folder, *given, f"data.cache={server.cache.parent}")
    far = f"data.root={server.url}"
    assert runs.train("local") == 0

    # The network breaks after some shards, for good: the run ends, saved, and says why.
    def breaks(name):
        if sum(asked.startswith("train-") for asked in server.asked) == 3:
            server.fail("train-", "503")
        return ""

    server.fault = breaks
    with pytest.raises(UserError, match=rf"{server.url}/train-.*503.*run\.resume=must"):
        runs.train("far", far)
    assert 0 < runs.state("far")["step"] < 12
    server.fail("", "")
    assert runs.train("far", far, "run.resume=must", "data.workers=1") == 0
    runs.assert_equal("far", "local")
    assert dispatch(["evaluate", f"run={tmp_path / 'far'}", far]) == 0


@pytest.mark.parametrize("fault", ["wait", "trickle"])
@pytest.mark.parametrize("name", ["train.json", "val-00000"])
def test_a_server_that_never_ends_is_not_waited_for(server, monkeypatch, fault, name):
    source = server.far().validation
    for key, value in (("PAUSES", (0.01,)), ("FIRST_SECONDS", 1.0), ("LEAST_RATE", 1e12)):
        monkeypatch.setattr(remote, key, value)
    server.fail(name, fault)
    said = rf"{name}\S* cannot be read after 2 tries \(.*Timeout"
    with pytest.raises(UserError, match=said):
        server.far() if name == "train.json" else source.read(0)


def test_an_endless_description_is_not_read_to_its_end(server, monkeypatch):
    monkeypatch.setattr(remote, "MAX_DESCRIPTION_BYTES", 1_000_000)
    server.fail("train.json", "endless")
    with pytest.raises(UserError, match="more than 1,000,000 bytes came"):
        server.far()
    assert not content(server.cache)


def test_a_full_disk_is_named_at_once(server, monkeypatch):
    source, tries = server.far(in_memory(server.folder)).validation, []

    def full(*asked, **how):
        tries.append(asked)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.get_file", full)
    with pytest.raises(UserError, match=r"data\.cache: .*written \(No space left.*; free space"):
        source.read(0)
    assert len(tries) == 1


def test_what_else_lies_in_the_cache_stays(server):
    shutil.copytree(server.folder, server.cache)  # the user's own, prepared there
    (server.cache / ".film.77.tmp").write_text("half a film")
    before = content(server.cache)
    assert_same(held_out(server.far()), held_out(server.local()))
    assert before.items() <= content(server.cache).items()


@pytest.mark.parametrize(
    "root",
    [
        "https://me:hunter2@host/x", "s3://AKIA:hunter2@bucket/x", "https://host/x?token=hunter2",
        "https://hunter2@host/x", "simplecache::https://me:hunter2@host/x", "https://me:hun/ter2@host/x",
    ],
)  # fmt: skip
def test_credentials_in_a_url_are_refused_and_not_repeated(root):
    said = r"data\.root: a URL with .*environment variables"
    with pytest.raises(UserError, match=said) as caught:
        DataConfig(DataKind.shards, root)
    assert "hun" not in str(caught.value)
    DataConfig(DataKind.shards, "https://host:8080/a@b/c")
