"""Shards as a source: the folder's images, order and batches; small, and whole or named."""

import copy
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import assert_same, made, opened, shards_of, silent, training, validation

from bn_inception.data import DataConfig, DataKind
from bn_inception.data.intake.audit import audit
from bn_inception.data.order import stored_order
from bn_inception.data.shards import Description, Layout
from bn_inception.data.source import content_fingerprint
from bn_inception.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")


@pytest.fixture
def both(image_folder, tmp_path):
    """A folder and the shards of it; the last shard is not full."""
    root = image_folder({"n02": 4, "n01": 5, "n10": 2}, {"n01": 2, "n02": 1, "n10": 2})
    return root, shards_of(root, tmp_path / "shards")


@pytest.mark.parametrize("first_classes", [None, 2])
def test_folders_and_shards_give_the_same_images_and_batches(both, first_classes):
    folder = opened(both[0], first_classes=first_classes)
    shards = opened(both[1], DataKind.shards, first_classes=first_classes)
    for one, other in ((folder.train, shards.train), (folder.validation, shards.validation)):
        assert one.classes == other.classes == ("n01", "n02", "n10")[:first_classes]
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.fingerprint == other.fingerprint
        for index in range(len(one)):
            assert one.read(index) == other.read(index)
            assert one.identity(index) == other.identity(index)
    assert_same(training(folder.train), training(shards.train, workers=2))
    assert_same(validation(folder.validation), validation(shards.validation, 2))
    with pytest.raises(UserError, match=r"first_classes: 4 is more than the 3 classes"):
        opened(both[1], DataKind.shards, first_classes=4)


def test_shards_are_plain_tar_files_in_the_convention(both):
    source = opened(both[1], DataKind.shards).train
    seen = []
    for path in sorted(both[1].glob("train-*.tar")):
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
            for image, label in zip(members[::2], members[1::2], strict=True):
                key, dot, kind = image.name.partition(".")
                assert (dot, kind) == (".", "jpg")
                assert label.name == f"{key}.cls"
                index = int(key.partition("-")[0])
                assert source.name(index) == f"{path}/{image.name}"
                content, number = tar.extractfile(image), tar.extractfile(label)
                assert content.read() == source.read(index)
                assert int(number.read()) == source.labels[index]
                seen.append(index)
    assert seen == stored_order(len(source)).tolist()
    check = ["sha256sum", "--check", "--quiet", "train.sha256"]
    assert subprocess.run(check, cwd=both[1], check=False).returncode == 0


def test_odd_names_survive_and_their_keys_are_plain(tmp_path):
    root = tmp_path / "images"
    keys = {
        b"a.b.jpg": "00000000-a_b",
        b"a_b.jpg": "00000001-a_b",
        b"caf\xe9 1.jpg": "00000002-caf__1",
        b"x" * 200 + b".tar.jpg": f"00000003-{'x' * 60}",
        "\u00e9.png".encode(): "00000004-__",
    }
    for split in ("train", "val"):
        folder = os.fsencode(root / split / "a")
        os.makedirs(folder)
        for number, name in enumerate(keys):
            with open(folder + b"/" + name, "wb") as file:
                file.write(b"%d" % number)
    folder, shards = opened(root).train, opened(shards_of(root, tmp_path / "s"), DataKind.shards)
    for index, key in enumerate(keys.values()):
        assert shards.train.identity(index) == folder.identity(index)
        assert shards.train.read(index) == folder.read(index)
        assert shards.train.name(index).endswith(f".tar/{key}.jpg")


Spoil = Callable[[Path], object]


def edited(name, change):
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


def described(**values):
    return edited("train.json", lambda text: json.dumps(json.loads(text) | values).encode())


def indexed(change):
    """Changes the index, or puts another one in its place."""

    def spoil(root):
        index = np.load(root / "train.index.npy")
        changed = change(index)
        np.save(root / "train.index.npy", index if changed is None else changed)

    return spoil


def put(column, value):
    return indexed(lambda index: index[column].fill(value))


def removed(name):
    return lambda root: (root / name).unlink()


HOLLOW = b"\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'fortran_order': False, 'shape': (9999999999,)}"


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (removed("train.json"), r"has no train\.json.*bn-inception prepare"),
        (removed("val.json"), r"has no val\.json"),
        (edited("train.json", lambda _: b"{"), r"train\.json is damaged"),
        (edited("train.json", lambda _: b"[]"), "a JSON list, not an object"),
        (edited("train.json", lambda _: b"[" * 10**6), "nested too deep"),
        (described(format="x" * 999), "format is 'x{59},"),
        (described(images=13), "do not agree"),
        (described(shard_sha256=[]), "no finished shards"),
        (described(images=True), "'images' is True"),
        (described(shard_size=0), "in shards of 0"),
        (described(split="val"), "its split is 'val'"),
        (described(classes=["a", "\ud800"]), "surrogates not allowed"),
        (described(shard_sha256=["../x"] * 3), "is not a SHA-256"),
        (described(fingerprint="0" * 64), "another fingerprint"),
        (removed("train-000001.tar"), r"000001\.tar cannot be read \(No such file"),
        (edited("train-000002.tar", lambda data: data[:100]), r"000002\.tar has 100 bytes"),
        (removed("train.index.npy"), r"index\.npy cannot be read"),
        (edited("train.index.npy", lambda data: data[:60]), r"index\.npy cannot be read"),
        (edited("train.index.npy", lambda _: HOLLOW), r"index\.npy cannot be read"),
        (indexed(lambda index: index["label"]), "cannot be read"),
        (indexed(lambda index: index[:-1]), "does not fit the shards"),
        (indexed(lambda index: index[::-1]), "does not fit the shards"),
        (indexed(lambda index: index["label"].put(1, 2)), "does not fit"),
        (put("label", 3), "does not fit the shards"),
        (put("length", -1), "does not fit the shards"),
        (put("length", 1 << 62), "does not fit the shards"),
        (put("length", 99_999), "bytes, not"),
        (put("label", 0), "another fingerprint"),
    ],
)
def test_what_is_not_whole_is_named(both, spoil, named):
    spoil(both[1])
    with pytest.raises(UserError, match=named) as caught:
        opened(both[1], DataKind.shards)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert str(caught.value).startswith("data.root: ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_value_in_a_description_works_or_is_named(both, data):
    path = both[1] / "train.json"
    whole = path.read_text()
    values: dict[str, Any] = json.loads(whole)
    name = data.draw(st.sampled_from(sorted(values)))
    value, new = copy.deepcopy(values[name]), data.draw(JSON)
    if isinstance(value, list) and data.draw(st.booleans()):
        value[data.draw(st.sampled_from([0, 1]))] = new
    else:
        value = new
    path.write_text(json.dumps({**values, name: value}))
    acts = (
        lambda: audit(DataConfig(DataKind.shards, str(both[1]), workers=0), silent),
        lambda: made(*both),
    )
    try:
        for act in acts:
            try:
                act()
            except UserError as error:
                assert "\n" not in str(error) and len(str(error)) < 1000
                str(error).encode()
    finally:
        path.write_text(whole)
        made(*both)


READ_ALL_OVER = """
import os, random, sys
from bn_inception.data.shards import ShardSource

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

source = ShardSource(sys.argv[1], "train")
if os.fork():
    sys.exit(os.wait()[1] != 0)
before = resident()
for index in random.Random(0).sample(range(len(source)), 60000):
    assert len(source.read(index)) == 2000
source.labels.sum()
print(resident() - before)
"""


@pytest.mark.timeout(300)
def test_an_index_of_imagenets_size_costs_a_worker_little(tmp_path):
    """Over shards that are holes; a worker is a fork."""
    count = 1_281_167
    labels = np.arange(count) * 1000 // count
    lengths = np.full(count, 2000)
    names = np.array([b"n%08d/n%08d_%07d.JPEG" % (k, k, i) for i, k in enumerate(labels.tolist())])
    index = np.rec.fromarrays([lengths, labels, names], names=["length", "label", "name"])
    np.save(tmp_path / "train.index.npy", np.asarray(index))
    sizes = Layout(lengths, 1251).bytes
    for shard, size in enumerate(sizes):
        (tmp_path / f"train-{shard:06d}.tar").touch()
        os.truncate(tmp_path / f"train-{shard:06d}.tar", size)
    classes = [f"n{k:08d}" for k in range(1000)]
    fingerprint = content_fingerprint(classes, names, lengths, labels)
    sums = ["0" * 64] * len(sizes)
    meta = Description("train", classes, count, 1251, fingerprint, "0" * 64, sums)
    (tmp_path / "train.json").write_text(meta.as_json())
    command = [sys.executable, "-c", READ_ALL_OVER, str(tmp_path)]
    assert int(subprocess.check_output(command, cwd=Path(__file__).parents[2])) < 50_000_000
