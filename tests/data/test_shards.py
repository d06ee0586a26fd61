"""Shards as a source: the folder's images, order and batches; small, mapped, and checked."""

import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from batches import assert_same, training, validation
from imagenets import shards_of

from bn_inception.data import DataConfig, DataKind, Sources, open_sources
from bn_inception.data.description import COLUMNS, ORIGINAL, ShardMeta, file_sha256, member_key
from bn_inception.data.intake.audit import audit
from bn_inception.data.order import TrainingOrder, stored_order
from bn_inception.data.shards import FileReader, ShardSource
from bn_inception.errors import UserError

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")


def opened(root: Path, kind: DataKind = DataKind.shards, **settings: object) -> Sources:
    return open_sources(DataConfig(kind=kind, root=str(root), **settings))


@pytest.fixture
def both(image_folder: MakeFolder, tmp_path: Path) -> tuple[Path, Path]:
    """A folder and the shards of it; the last shard is not full."""
    root = image_folder({"n02": 4, "n01": 5, "n10": 2}, {"n01": 2, "n02": 1, "n10": 2})
    return root, shards_of(root, tmp_path / "shards")


def test_the_same_images_in_the_same_order(both: tuple[Path, Path]) -> None:
    folder, shards = opened(both[0], DataKind.folder), opened(both[1])
    for one, other in ((folder.train, shards.train), (folder.validation, shards.validation)):
        assert one.classes == other.classes == ("n01", "n02", "n10")
        assert len(one) == len(other)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert other.labels.dtype == np.int64
        assert one.fingerprint() == other.fingerprint()
        for index in range(len(one)):
            assert one.read(index) == other.read(index)
            assert one.identity(index) == other.identity(index)
        for index in (-1, len(other)):
            with pytest.raises(IndexError):
                other.read(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_on_folders_and_one_on_shards_see_the_same_batches(
    both: tuple[Path, Path], workers: int
) -> None:
    folder, shards = opened(both[0], DataKind.folder), opened(both[1])
    assert_same(training(folder.train), training(shards.train, workers=workers))
    assert_same(validation(folder.validation), validation(shards.validation, workers))


def test_first_classes_are_the_folders(both: tuple[Path, Path]) -> None:
    folder = opened(both[0], DataKind.folder, first_classes=2).train
    shards = opened(both[1], first_classes=2).train
    assert shards.classes == folder.classes == ("n01", "n02")
    assert shards.labels.tolist() == folder.labels.tolist()
    assert shards.fingerprint() == folder.fingerprint()
    assert [shards.read(i) for i in range(len(shards))] == [
        folder.read(i) for i in range(len(folder))
    ]
    with pytest.raises(IndexError):
        shards.identity(len(shards))
    with pytest.raises(UserError, match=r"first_classes: 4 is more than the 3 classes"):
        opened(both[1], first_classes=4)


def test_shards_are_plain_tar_files_in_the_convention(both: tuple[Path, Path]) -> None:
    source = opened(both[1]).train
    order = stored_order(len(source)).tolist()
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
                assert content is not None and number is not None
                assert content.read() == source.read(index)
                assert int(number.read()) == source.labels[index]
                seen.append(index)
    assert seen == order  # a run with the same shard size reads one shard after the other
    check = ["sha256sum", "--check", "--quiet", "train.sha256"]
    assert subprocess.run(check, cwd=both[1], check=False).returncode == 0


@pytest.mark.parametrize("shuffling", [False, True])
def test_an_epoch_reads_one_shard_after_the_other(both: tuple[Path, Path], shuffling: bool) -> None:
    source = opened(both[1]).train
    for epoch in range(3):
        order = TrainingOrder(len(source), 2, 9, shuffling, source.meta.shard_size).epoch(epoch)
        shards = [Path(source.name(index)).parent.name for index in order.tolist()]
        changes = sum(one != other for one, other in pairwise(shards))
        assert changes == len(source.meta.shard_bytes) - 1


def test_keys_hold_one_part_whatever_the_name() -> None:
    assert member_key(41, b"n01/n01_5.JPEG") == "00000041-n01_5"
    assert member_key(1, b"a/x.tar.gz.jpg") == "00000001-x_tar_gz"
    assert member_key(2, b"a/caf\xe9 1.png") == "00000002-caf__1"
    assert len(member_key(3, b"a/" + b"x" * 250 + b".png")) == 69


def test_odd_names_survive(tmp_path: Path) -> None:
    root = tmp_path / "images"
    names = [b"caf\xe9.jpg", b"a.b.jpg", b"a_b.jpg", b"x" * 200 + b".jpg", "\u00e9.png".encode()]
    for split in ("train", "val"):
        folder = os.fsencode(root / split / "a")
        os.makedirs(folder)
        for number, name in enumerate(names):
            with open(folder + b"/" + name, "wb") as file:
                file.write(b"%d" % number)
    folder, shards = opened(root, DataKind.folder).train, opened(shards_of(root, tmp_path / "s"))
    for index in range(len(names)):
        assert shards.train.identity(index) == folder.identity(index)
        assert shards.train.read(index) == folder.read(index)


def test_pickled_as_a_path(both: tuple[Path, Path]) -> None:
    source = ShardSource(str(both[1]), "train", 2)
    data = pickle.dumps(source)
    assert len(data) < 500
    copy = pickle.loads(data)
    assert len(copy) == len(source)
    assert copy.read(3) == source.read(3)


def test_forked_processes_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    reader = FileReader([str(path)])
    assert reader.read(0, 10, 3) == bytes([10, 11, 12])
    children = []
    for own in range(3):
        child = os.fork()
        if child == 0:
            good = all(reader.read(0, n % 98, 2)[0] == n % 98 for n in range(own, 5000))
            os._exit(0 if good else 1)
        children.append(child)
    assert all(reader.read(0, n % 98, 2)[0] == n % 98 for n in range(5000))
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    with pytest.raises(OSError, match="ends at byte 100"):
        reader.read(0, 95, 10)


def test_few_files_are_open_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(200)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    before = len(os.listdir("/proc/self/fd"))
    reader = FileReader([str(path) for path in paths])
    for _ in range(2):
        assert [reader.read(n, 0, 1)[0] for n in range(200)] == list(range(200))
    assert 0 < len(os.listdir("/proc/self/fd")) - before <= 64
    del reader
    assert len(os.listdir("/proc/self/fd")) == before


def spoil_description(root: Path, **values: object) -> None:
    path = root / "train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def spoil_column(root: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change a column and all that vouches for it but the fingerprint."""
    path = root / "train.index" / f"{name}.npy"
    np.save(path, change(np.load(path)))
    sums = json.loads((root / "train.json").read_text())["index_sha256"]
    spoil_description(root, index_sha256={**sums, name: file_sha256(path)})


def relabelled(labels: np.ndarray) -> np.ndarray:
    return np.minimum(labels, 1)


def edit_labels(root: Path) -> None:
    path = root / "train.index" / "label.npy"
    np.save(path, relabelled(np.load(path)))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda root: (root / "train.json").unlink(), r"has no train\.json.*bn-inception prepare"),
        (lambda root: (root / "val.json").unlink(), r"has no val\.json"),
        (lambda root: (root / "train.json").write_text("{"), r"train\.json is damaged"),
        (lambda root: (root / "train.json").write_text("[]"), "does not describe shards"),
        (lambda root: spoil_description(root, version=2), "version is not 1: 2"),
        (lambda root: spoil_description(root, images=13), "do not agree"),
        (lambda root: spoil_description(root, more=1), "is damaged"),
        (lambda root: (root / "train-000001.tar").unlink(), r"train-000001\.tar: No such file"),
        (lambda root: os.truncate(root / "train-000002.tar", 100), r"000002\.tar has 100 bytes"),
        (lambda root: (root / "train.index" / "offset.npy").unlink(), r"offset\.npy cannot be"),
        (lambda root: os.truncate(root / "train.index" / "shard.npy", 60), "shard.npy cannot be"),
        (lambda root: spoil_column(root, "label", lambda a: a[:-1]), r"label\.npy holds \(10,\)"),
        (lambda root: spoil_column(root, "length", np.float32), r"length\.npy holds .* float32"),
        (lambda root: spoil_column(root, "label", lambda a: a[::-1]), "does not fit the shards"),
        (lambda root: spoil_column(root, "shard", lambda a: a + 1), "does not fit the shards"),
        (lambda root: spoil_column(root, "offset", lambda a: a * 9), "does not fit the shards"),
        (lambda root: spoil_column(root, "offset", lambda a: a - 9999), "does not fit the shards"),
        (lambda root: spoil_column(root, "names", lambda a: a[:-1]), "does not fit the shards"),
        (lambda root: edit_labels(root), r"label\.npy differs from its checksum in train\.json"),
        (lambda root: spoil_description(root, fingerprint="0" * 64), "gives the fingerprint 0000"),
        (lambda root: spoil_column(root, "label", relabelled), "gives the fingerprint"),
    ],
)
def test_what_is_not_whole_is_named(
    both: tuple[Path, Path], spoil: Callable[[Path], None], named: str
) -> None:
    spoil(both[1])
    with pytest.raises(UserError, match=named) as caught:
        opened(both[1])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("data.root: ")
    with pytest.raises(UserError, match=named):
        audit(DataConfig(DataKind.shards, str(both[1]), workers=0), lambda *words: None)


def test_labels_that_all_vouch_for_give_another_fingerprint(both: tuple[Path, Path]) -> None:
    before = opened(both[1]).train.fingerprint()
    spoil_column(both[1], "label", relabelled)
    changed = ShardSource(str(both[1]), "train").fingerprint()
    spoil_description(both[1], fingerprint=changed)
    assert opened(both[1]).train.fingerprint() == changed != before  # which a run's record has


def test_prepare_notices_a_forged_fingerprint(both: tuple[Path, Path]) -> None:
    spoil_description(both[1], fingerprint="0" * 64)
    with pytest.raises(UserError, match="gives the fingerprint 0000"):
        shards_of(*both)


def test_a_place_without_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root: not given.*bn-inception prepare"):
        open_sources(DataConfig(kind=DataKind.shards))
    with pytest.raises(UserError, match="does not exist"):
        opened(tmp_path / "nowhere")


def test_splits_of_two_data_sets_do_not_mix(
    both: tuple[Path, Path], tmp_path: Path, image_folder: MakeFolder
) -> None:
    source = tmp_path / "only" / "train"
    source.mkdir(parents=True)
    (both[0] / "train" / "n01").rename(source / "n01")
    other = shards_of(tmp_path / "only", tmp_path / "other")
    for path in other.iterdir():
        if path.name.startswith("train"):
            replaced = both[1] / path.name
            if replaced.is_dir():
                replaced.rename(tmp_path / "aside")
            path.rename(replaced)
    with pytest.raises(UserError, match="different classes"):
        opened(both[1])


IMAGES = 1_281_167


def imagenet_sized(root: Path) -> None:
    """An index of ImageNet's size over shards that are holes."""
    size, length = 1251, 2000
    shards = -(-IMAGES // size)
    order = stored_order(IMAGES)
    place = np.empty(IMAGES, dtype=np.int64)
    place[order] = np.arange(IMAGES)
    labels = np.arange(IMAGES, dtype=np.int64) * 1000 // IMAGES
    names = b"".join(b"n%08d/n%08d_%07d.JPEG" % (k, k, i) for i, k in enumerate(labels.tolist()))
    columns = {
        "shard": place // size,
        "offset": place % size * length,
        "length": np.full(IMAGES, length),
        "label": labels,
        "name_end": np.arange(1, IMAGES + 1) * (len(names) // IMAGES),
        "names": np.frombuffer(names, dtype=np.uint8),
    }
    (root / "train.index").mkdir()
    for name, kind in COLUMNS.items():
        np.save(root / "train.index" / f"{name}.npy", columns[name].astype(kind))
    classes = [f"n{k:08d}" for k in range(1000)]
    meta = ShardMeta("train", classes, IMAGES, size, ORIGINAL, "0" * 64, "0" * 64)
    paths = {name: root / "train.index" / f"{name}.npy" for name in COLUMNS}
    meta.index_sha256 |= {name: file_sha256(path) for name, path in paths.items()}
    for shard in range(shards):
        path = root / f"train-{shard:06d}.tar"
        path.touch()
        os.truncate(path, size * length)
        meta.shard_bytes.append(size * length)
        meta.shard_sha256.append("0" * 64)
    (root / "train.json").write_text(meta.as_json())


MEASURE = """
import os, random, sys
from bn_inception.data.shards import ShardSource

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

source = ShardSource(sys.argv[1], "train")
assert len(source) == 1281167
child = os.fork()
if child == 0:
    # A worker: reads all over the index, as an epoch does.
    before = resident()
    generator = random.Random(0)
    for index in generator.sample(range(len(source)), 60000):
        assert len(source.read(index)) == 2000
    source.labels.sum()
    print(resident() - before, flush=True)
    os._exit(0)
assert os.wait()[1] == 0
"""


@pytest.mark.timeout(300)
def test_an_index_of_imagenets_size_costs_a_worker_little(tmp_path: Path) -> None:
    imagenet_sized(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 100_000_000
    source = ShardSource(str(tmp_path), "train")
    assert source.identity(IMAGES - 1) == "n00000999/n00000999_1281166.JPEG"
    # Neither lists nor copies: every column is a view of the mapped file.
    for column in (source._file, source._offset, source._length, source.labels, source.names.text):
        assert isinstance(column, np.ndarray) and not column.flags["OWNDATA"]
    assert len(pickle.dumps(source)) < 500
