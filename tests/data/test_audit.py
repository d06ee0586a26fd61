"""The audit: names what is odd, tells what is wrong, and is quiet about a sound data set."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from samples import encoded, opened, photo, shards_of
from small_runs import TINY, write_images

from bn_inception.cli.main import dispatch
from bn_inception.data import DataKind, FolderSource
from bn_inception.errors import UserError
from bn_inception.paper import results

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork")


def audited(root, kind="folder", workers=0):
    """The command's result; its status tells of problems."""
    output, cache = root.parent / "audit.json", root.parent / "cache"
    given = [f"data.root={root}", f"data.workers={workers}", f"data.cache={cache}"]
    status = dispatch(["audit", f"data={kind}", *given, f"output={output}"])
    result: dict[str, Any] = json.loads(output.read_text())
    assert status == bool(result["problems"]) and result["data"] == kind
    return result


def test_a_sound_data_set(image_folder, capsys):
    root = image_folder({"n01": 3, "n02": 5}, {"n01": 2, "n02": 2})
    result = audited(root)
    assert result["problems"] == result["unreadable"] == result["in_train_too"] == []
    assert (result["classes"], result["labels"]) == (2, "0 is n01, 1 is n02")
    source = opened(root).train
    contents = [source.read(index) for index in range(8)]
    digests = b"".join(hashlib.sha256(data).digest() for data in contents)
    assert result["splits"]["train"] == {
        "images": 8,
        "readable": 8,
        "smallest class": 3,
        "largest class": 5,
        "mean bytes": round(sum(map(len, contents)) / 8),
        "JPEG RGB": 8,
        "content sha256": hashlib.sha256(digests).hexdigest(),
    }
    # The same fingerprint that a run on this data records.
    assert result["fingerprint"] == opened(root).fingerprint
    assert "no problems" in capsys.readouterr().out


@pytest.fixture
def odd(image_folder):
    """One image of every kind of oddness, and some of every way to be broken."""
    root = image_folder({"a": 2, "b": 2})
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, data in {
        "cmyk": encoded(photo(1).convert("CMYK")),
        "png": encoded(photo(2), "PNG"),
        "turned": encoded(photo(3), exif=exif),
        "cut": encoded(photo(4))[:-200],
        "empty": b"",
        **{f"text{number}": b"<html>not found</html>" for number in range(9)},
        "grey": encoded(photo(5).convert("L")),
        "again": (root / "val" / "b" / "b_0.JPEG").read_bytes(),
    }.items():
        (root / "train" / "a" / f"{name}.JPEG").write_bytes(data)
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_odd_is_named(odd, workers, capsys):
    result = audited(odd, workers=workers)
    found = {Path(each["name"]).stem: each["reason"] for each in result["unreadable"]}
    assert set(found) == {"cut", "empty", *(f"text{number}" for number in range(9))}
    assert found["empty"] == "the file is empty" and "truncated" in found["cut"]
    train = result["splits"]["train"]
    counted = ("images", "readable", "JPEG RGB", "JPEG CMYK", "JPEG L", "PNG RGB")
    assert [train[key] for key in counted] == [20, 9, 6, 1, 1, 1]
    assert [Path(name).name for name in result["in_train_too"]] == ["b_0.JPEG"]
    (problem,) = result["problems"]
    assert problem == f"11 images cannot be read or decoded, the first is {odd}/train/a/cut.JPEG"
    text = capsys.readouterr().out
    assert f"problem: {problem}" in text
    assert "unreadable: 11\n" in text and "and 1 more" in text and "b_0.JPEG" in text


def test_files_that_cannot_be_opened_are_no_duplicates(image_folder, monkeypatch):
    def fail(source, index):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FolderSource, "read", fail)
    result = audited(image_folder({"a": 2, "b": 2}))
    assert len(result["unreadable"]) == 6 and result["in_train_too"] == []


def test_imagenets_counts_and_names(image_folder):
    root = image_folder({"dog": 2, "n01440764": 1}, {"dog": 2, "n01440764": 1})
    problems = audited(root, "imagenet")["problems"]
    assert problems == opened(root, DataKind.imagenet).warnings
    alike = "results will not be comparable with the paper's"
    assert [
        problem.removeprefix(f"{root}: ").removesuffix(f": {alike}") for problem in problems
    ] == [
        "3 training images, ImageNet has 1,281,167",
        "3 validation images, ImageNet has 50,000",
        "2 classes, ImageNet has 1,000",
        "1 to 2 validation images a class, ImageNet has 50",
        "1 classes are not named by a wnid such as n01440764, the first is dog, "
        "so labels are not in ImageNet's order",
    ]


def test_shards_of_imagenets_classes_are_counted(image_folder, tmp_path, monkeypatch):
    root = image_folder({"n01440764": 2, "n01443537": 1})
    shards = shards_of(root, tmp_path / "shards")
    assert audited(shards, "shards")["problems"] == []  # a thousand wnids are ImageNet's
    monkeypatch.setattr(results, "IMAGENET_CLASSES", 2)
    (problem, *_) = audited(shards, "shards")["problems"]
    assert problem.startswith(f"{shards}: 3 training images, ImageNet has 1,281,167")
    for split in ("train", "val"):
        (root / split / "n01443537").rename(root / split / "dog")
    other = shards_of(root, tmp_path / "other")
    assert audited(other, "shards")["problems"] == []


def test_a_run_recommends_an_audit_until_there_was_one(tmp_path, capsys):
    data = [f"data.root={write_images(tmp_path / 'photos')}", f"data.cache={tmp_path / 'cache'}"]

    def said(name):
        given = [f"run.root={tmp_path}", f"run.name={name}", "train.steps=1"]
        assert dispatch(["train", "recipe=bn_x5", *TINY, *data, *given]) == 0
        return capsys.readouterr().err

    assert "audit    never" in said("before")
    assert dispatch(["audit", "data=folder", "data.workers=0", *data]) == 0
    assert "audit    never" not in said("after")


@pytest.mark.parametrize("output", ["nope/a.json", ".", "", "'~nobody/a.json'"])
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(
    odd, output, monkeypatch, capsys
):
    monkeypatch.chdir(odd)
    with pytest.raises(UserError, match=r"output: .* is (no|a) folder"):
        dispatch(["audit", f"data.root={odd}", "data.workers=0", f"output={output}"])
    assert capsys.readouterr() == ("", "")  # no progress either


def test_what_sees_a_flipped_bit(image_folder, tmp_path):
    root = image_folder({"a": 2, "b": 2})
    shards = shards_of(root, tmp_path / "shards")
    before = audited(root)
    for key in ("fingerprint", "splits", "problems"):
        assert audited(shards, "shards", workers=2)[key] == before[key]
    image = root / "train" / "a" / "a_0.JPEG"
    content = image.read_bytes()
    flipped = content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]
    image.write_bytes(flipped)
    after = audited(root)
    assert after["fingerprint"] == before["fingerprint"]  # as docs/data.md says
    assert after["splits"]["train"]["content sha256"] != before["splits"]["train"]["content sha256"]
    path = shards / "train-000000.tar"
    path.write_bytes(path.read_bytes().replace(content, flipped))
    result = audited(shards, "shards")
    assert result["fingerprint"] == before["fingerprint"]
    assert result["splits"]["train"]["content sha256"] == after["splits"]["train"]["content sha256"]
    assert f"{path} differs from its checksum" in result["problems"]


@pytest.mark.parametrize("given", ["data.on_error=skip", "data.backend=pillow"])
def test_what_is_not_read_is_refused(odd, given):
    key, _, value = given.partition("=")
    with pytest.raises(UserError, match=f"^{key}: {value} is not read by audit; leave it out: "):
        dispatch(["audit", f"data.root={odd}", given])


def test_names_that_are_not_utf_8(odd, tmp_path):
    for split in ("train", "val"):
        folder = os.fsencode(odd / split)
        os.rename(folder + b"/a", folder + b"/a\xff")
    root = os.fsencode(odd) + b"\xfe"
    os.rename(odd, root)
    broken = root + b"/train/a\xff/0\xff.jpg"
    os.rename(root + b"/train/a\xff/text0.JPEG", broken)
    output = os.fsencode(tmp_path) + b"/o\xfd.json"
    # A UTF-8 terminal; Python's own way with names is laxer in the C locale alone.
    result = subprocess.run(
        [sys.executable, "-m", "bn_inception", "audit", "data.workers=0", f"data.cache={tmp_path}",
         b"data.root='" + root + b"'", b"output='" + output + b"'"],
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"}, capture_output=True,
    )  # fmt: skip
    assert result.returncode == 1 and b"Traceback" not in result.stderr, result.stderr.decode()
    name = broken.decode("utf-8", "backslashreplace")
    assert name in result.stdout.decode()
    with open(output, encoding="utf-8") as file:
        written = json.load(file)
    assert name in {each["name"] for each in written["unreadable"]}
    assert written["labels"] == r"0 is a\xff, 1 is b"
    assert written["root"] == root.decode("utf-8", "backslashreplace")
    assert written["in_train_too"] == [f"{written['root']}/val/b/b_0.JPEG"]
