"""Saved predictions: what was written is read, anything else is one clear line."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from evaluation.networks import Malicious, refusal
from hypothesis import given
from hypothesis import strategies as st

from bn_inception import UserError
from bn_inception.record.predictions import (
    Predictions,
    read_meta,
    read_predictions,
    write_predictions,
)

META = '{"format": 1}'


def example(**changes):
    fields = {
        "ids": np.array(["n0/a.JPEG", "n0/ä.JPEG", "n1/c.JPEG"]),
        "labels": np.array([0, 0, 1]),
        "probabilities": np.array([[0.75, 0.25], [0.5, 0.5], [0, 0]], np.float16),
        "meta": {"crops": "144", "classes": ["n0", "n1"]},
    }
    return Predictions(**{**fields, **changes})


def raw(path, meta=META, save=np.savez, **changes):
    """A file with the arrays of the example, whether or not they fit."""
    arrays = {key: getattr(example(), key) for key in ("ids", "labels", "probabilities")}
    save(path, **{**arrays, "meta": np.array(meta), **changes})
    return path


def refused(path, read=read_predictions):
    text = refusal(read, path)
    assert str(path) in text
    return text


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "a.npz"
    write_predictions(path, example())
    write_predictions(path, example())  # a file that is there is replaced
    found = read_predictions(path)
    for name in ("ids", "labels", "probabilities"):
        assert np.array_equal(getattr(found, name), getattr(example(), name))
    assert found.meta == {"format": 1, **example().meta}
    assert found.readable.tolist() == [True, True, False] and len(found) == 3
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file.files) == ["ids", "labels", "meta", "probabilities"]
        assert file["probabilities"].dtype == np.float16
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]
    assert "cannot be written" in refusal(write_predictions, tmp_path / "no" / "a.npz", example())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": np.array([0, 2, 1])}, "has the label 2"),
        ({"labels": np.array([0, -1, 1])}, "has the label -1"),
        ({"labels": np.array([0.0, 0.0, 1.0])}, "'labels' is of type float64"),
        ({"labels": np.array([0, 1])}, "3 ids, 2 labels"),
        ({"ids": np.array(["a", "b", "a"])}, "the id a is there twice"),
        ({"ids": np.array([b"a", b"b", b"c"])}, "'ids' is of type"),
        ({"probabilities": np.ones((3, 2), np.float16)}, "row of n0/a.JPEG is no probabilities"),
        ({"probabilities": np.full((3, 2), np.nan, np.float16)}, "is no probabilities"),
        ({"probabilities": np.array([[2, -1]] * 3, np.float16)}, "is no probabilities"),
        ({"probabilities": np.ones((3, 2), np.float32) / 2}, "of type float32"),
        ({"probabilities": np.ones(3, np.float16)}, "shape (3,)"),
    ],
)
def test_contents_that_do_not_fit_are_refused_writing_and_reading(tmp_path, changes, said):
    path = tmp_path / "a.npz"
    assert said in refusal(write_predictions, path, example(**changes))
    assert not path.exists()
    assert said in refused(raw(path, **changes))


@given(keep=st.integers(0, 1500), flip=st.integers(0, 255))
def test_a_damaged_file_is_refused_or_unchanged(tmp_path_factory, keep, flip):
    path = tmp_path_factory.mktemp("damaged") / "a.npz"
    write_predictions(path, example())
    data = bytearray(path.read_bytes())
    if flip:
        data[keep % len(data)] ^= flip
    else:
        data = data[: min(keep, len(data) - 1)]
    path.write_bytes(data)
    try:
        found = read_predictions(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert np.array_equal(found.probabilities, example().probabilities)


def test_a_strangers_file_is_one_line_and_nothing_in_it_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.npz"
    assert "no such file" in refused(path)
    pickled = np.array([Malicious()], dtype=object)
    assert "pickled objects, which are not read" in refused(raw(path, ids=pickled))
    path.write_bytes(pickle.dumps(Malicious()))
    assert "pickled objects, which are not read" in refused(path)
    assert not Path("harmed").exists()
    np.savez(path, labels=np.arange(3))
    assert "has no 'ids'" in refused(path)
    np.save(tmp_path / "one.npy", np.ones(3))
    assert "not predictions" in refused(tmp_path / "one.npy")
    assert "2 columns" in refused(raw(path, '{"format": 1, "classes": ["one"]}'))
    for meta in ("[]", "{", 9000 * "[", '{"format": 1e999}', '{"format": 1, "crops": []}'):
        assert "'meta'" in refused(raw(path, meta)) and "'meta'" in refused(path, read_meta)
    for meta in ("{}", '{"format": 2}'):
        assert "predictions of format" in refused(raw(path, meta))
    large = np.zeros((4_000_000, 2), np.float16)
    raw(path, save=np.savez_compressed, probabilities=large)
    assert "'probabilities' is longer than the file" in refused(path)
    for name in ("ids", "labels", "probabilities"):
        array = getattr(example(), name)
        turned = {name: array.astype(array.dtype.newbyteorder())}
        assert f"{name!r} is in the byte order of another machine" in refused(raw(path, **turned))
