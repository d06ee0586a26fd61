"""The ILSVRC 2012 archives: read where they lie, and refused by name where they are not sound."""

import gzip
import io
import os
import re
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import WNIDS, content, made, refused, tar_member, tar_of
from scipy.io import savemat

from bn_inception.data.intake import archives
from bn_inception.errors import UserError

KIT = "ILSVRC2012_devkit_t12.tar.gz"


@pytest.fixture
def development_kit(held_out):
    # As in the original: numbers do not follow the wnids, and inner nodes come after the leaves.
    numbers = {WNIDS[0]: 3, WNIDS[1]: 1, WNIDS[2]: 2}
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    rows = [(number, wnid, "a, b") for wnid, number in numbers.items()]
    synsets = np.array([*rows, (1001, "n00001740", "all")], dtype=kinds).reshape(-1, 1)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets}, do_compression=True)
    truth = "".join(f"{numbers[wnid]}\n" for wnid, _ in held_out.values())
    files = {
        "ILSVRC2012_devkit_t12/readme.txt": b"",
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
    }
    return gzip.compress(tar_of(files))


@pytest.mark.parametrize("told_by", ["list", "kit"])
def test_archives_give_the_bytes_that_folders_give(
    images, downloads, tmp_path, development_kit, told_by
):
    if told_by != "list":
        (downloads / "val_classes.txt").unlink()
        (downloads / KIT).write_bytes(development_kit)
    made(images, tmp_path / "one")
    made(downloads, tmp_path / "other")
    assert content(tmp_path / "one") == content(tmp_path / "other")


def test_a_missing_or_damaged_kit_is_named_with_the_remedy(
    development_kit, downloads, tmp_path, monkeypatch
):
    (downloads / "val_classes.txt").unlink()

    def said(kit):
        (downloads / KIT).write_bytes(kit)
        return refused(downloads, tmp_path / "shards")

    assert f"put {KIT} beside it" in refused(downloads, tmp_path / "shards")
    assert "cannot be read" in said(development_kit[: len(development_kit) // 2])
    assert "has no data/ILSVRC2012_validation_ground" in said(gzip.compress(tar_of({"a": b""})))
    hostile = gzip.compress(claiming(-512, "data/meta.mat"))
    assert "'data/meta.mat' has -512 bytes" in said(hostile)
    monkeypatch.setattr(archives, "_MAX_KIT_BYTES", 9_999)
    assert "unpacks to more than 9,999 bytes" in said(gzip.compress(bytes(10_000)))


def member(name, kind=tarfile.REGTYPE, data=b""):
    return tar_member(name, kind, data) + bytes(10240)


def claiming(size, name, kind=tarfile.REGTYPE):
    """An archive whose only member says so: a reader that believes -512 bytes never ends."""
    return tar_member(name, kind, size=size) + bytes(10240)


def extended(text, times=1):
    """An archive of one member with `times` extended headers before it."""
    return tar_member("extended", tarfile.XHDTYPE, text) * times + member("x.JPEG")


HOSTILE = {
    "negative": (claiming(-512, "x.JPEG"), "'x.JPEG' has -512 bytes"),
    "negative header": (claiming(-512, "x", tarfile.GNUTYPE_LONGNAME), "a header of -512 bytes"),
    "negative, extended": (extended(b"13 size=-512\n"), "'x.JPEG' has -512 bytes"),
    "a number too large": (extended(b"99999999999999999999 path=x\n"), r"source: \S+"),
    "a chain of headers": (extended(b"15 path=y.JPEG\n", 2000), "recursion"),
    "sparse": (
        extended(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"),
        "not an uncompressed tar file|not a plain file|damaged",
    ),
    "moved by its header": (extended(b"20 path=/etc/x.JPEG\n"), "the name of a plain file"),
    "absolute": (member("/etc/cron.d/x.JPEG"), "'/etc/cron.d/x.JPEG' does not have the name"),
    "outside": (member("../x.JPEG"), r"'../x.JPEG' does not have the name"),
    "inside": (member("a/b.JPEG"), "'a/b.JPEG' does not have the name"),
    **{
        f"of type {kind!r}": (member("x.JPEG", kind), "'x.JPEG' is not a plain file")
        for kind in (b"1", b"2", b"3", b"4", b"6", tarfile.GNUTYPE_SPARSE)  # links, devices, pipe
    },
    "folder": (member("sub", tarfile.DIRTYPE), "'sub' is not a plain file"),
    "large": (member("x.JPEG", data=b"x" * 1001), "'x.JPEG' has 1,001 bytes, not 0 to 1,000"),
    "long": (member("x" * 300 + ".JPEG"), "has a name of more than 255 bytes"),
    "endless": (member("x" * 900_000 + ".JPEG"), "a header of 900,"),
    "twice": (tar_of({"a.JPEG": b"1"})[:1024] + tar_of({"a.JPEG": b"2"}), "a.JPEG twice"),
    "compressed": (gzip.compress(tar_of({"a.JPEG": b"1"})), "not an uncompressed tar file"),
    "cut short": (tar_of({"a.JPEG": b"1" * 900})[:1000], "'a.JPEG' reaches over the end|damaged"),
    "no end": (tar_of({"a.JPEG": b"1"})[:1024], "is damaged .*no end at byte 1,024"),
    "torn": (
        tar_of({"a.JPEG": b"1"})[:1024] + b"\xff" * 512 + tar_of({"b.JPEG": b"2"}),
        "is damaged .*no end at byte 1,024",
    ),
    "huge header": (claiming(2 << 30, "x", tarfile.GNUTYPE_LONGNAME), "a header of 2,"),
    "nothing": (b"", "not an uncompressed tar file"),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("which", ["class", "validation"])
def test_hostile_archives_are_refused_by_name(what, which, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_IMAGE_BYTES", 1000)
    archive, named = HOSTILE[what]
    if which == "class":
        (tmp_path / archives.TRAIN_TAR).write_bytes(tar_of({"n01440764.tar": archive}))
    else:
        (tmp_path / archives.VAL_TAR).write_bytes(archive)
        (tmp_path / "val_classes.txt").write_text("n01440764\n" * (2 if what == "twice" else 1))
    text = refused(tmp_path, tmp_path / "shards")
    assert text.startswith("source: ")
    assert archives.TRAIN_TAR in text or archives.VAL_TAR in text
    assert re.search(named, text), text
    assert not list((tmp_path / "shards").glob("*.tar"))


def checked(header):
    """A header with the sum that belongs to it."""
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.integers(0, 4 * 512 - 1), st.integers(0, 255), max_size=6), st.booleans())
def test_a_changed_header_is_read_or_refused(changes, extended_format):
    kind = tarfile.PAX_FORMAT if extended_format else tarfile.GNU_FORMAT
    header = tarfile.TarInfo(f"{'a' * 120}.JPEG").tobuf(kind)
    content = bytearray(header.ljust(10240, b"\0"))
    for place, value in changes.items():
        content[place] = value
    # Sums that are right, so that what the header says is taken seriously.
    blocks = [bytes(content[i : i + 512]) for i in range(0, len(content), 512)]
    blocks = [checked(block) if block[257:262] == b"ustar" else block for block in blocks]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, archives.VAL_TAR)
        path.write_bytes(b"".join(blocks))
        try:
            assert len(archives.open_val_tar(path, ["n01440764"], "labels")) == 1
        except UserError as error:
            assert str(error).startswith("source: ")


ONE = ("n01440764.tar", tar_of({"x.JPEG": b"1"}))


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ([("x.JPEG", b"1")], "'x.JPEG' is not the tar file of a class"),
        ([("../n01440764.tar", ONE[1])], "not have the name of a plain file"),
        ([ONE, ("n2.tar", tar_of({}))], "'n2.tar' holds no images"),
        ([ONE, ("n2.tar", tar_of({"readme.txt": b"x"}))], "'n2.tar' holds no images"),
        ([ONE, ONE], "'n01440764.tar' is there twice"),
        *(
            ([ONE, (f"{name}.tar", ONE[1])], f"{name!r}"[:-1])
            for name in ("..", ".n2", ".", "n\n2", "n2\x1b[31m", "n2\udcff")
        ),
    ],
)
def test_an_outer_member_that_is_no_class_is_named(members, named, tmp_path):
    (tmp_path / archives.TRAIN_TAR).write_bytes(tar_of(members))
    text = refused(tmp_path, tmp_path / "shards")
    assert named in text and "give the original archive" in text


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [archives.TRAIN_TAR, archives.VAL_TAR, "val_classes.txt"])
def test_a_pipe_instead_of_a_file_is_named(downloads, tmp_path, name):
    (downloads / name).unlink()
    os.mkfifo(downloads / name)
    text = refused(downloads, tmp_path / "shards")
    assert str(downloads / name) in text and "not a regular file" in text


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (f"{WNIDS[0]}\n" * 8, "holds 9 images, val_classes.txt has 8"),
        ("n99999999\n" * 9, "different classes (3 and 1)"),
        ("../x\n" * 9, "not a list of classes"),
        (f"{'x' * 1_000_000}\n" + "y\n" * 8, "not a list of classes"),
        ("y\n" * (1 << 23) + "y\n", "more than 16,777,216 bytes"),
    ],
    ids=str.__len__,
)
def test_labels_must_belong_to_the_images(downloads, tmp_path, lines, said):
    (downloads / "val_classes.txt").write_text(lines)
    assert said in refused(downloads, tmp_path / "shards")
