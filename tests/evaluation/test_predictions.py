"""Saved predictions: what was written is read, anything else is one clear line."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_inception import UserError
from bn_inception.record import Predictions, read_predictions, write_predictions
from bn_inception.record.predictions import NEVER, ranks, read_meta


def example(**changes: Any) -> Predictions:
    fields = {
        "ids": np.array(["n0/a.JPEG", "n0/ä.JPEG", "n1/c.JPEG"]),
        "labels": np.array([0, 0, 1]),
        "probabilities": np.array([[0.75, 0.25], [0.5, 0.5], [0, 0]], np.float16),
        "meta": {"crops": "144", "classes": ["n0", "n1"]},
    }
    return Predictions(**{**fields, **changes})


def test_what_was_written_is_read(tmp_path: Path) -> None:
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


def test_ranks_count_unreadable_as_wrong() -> None:
    # With two classes every class is among the first five; these still are not.
    assert example().ranks().tolist() == [0, 0, NEVER]
    assert example(labels=np.array([1, 1, 0])).ranks().tolist() == [1, 1, NEVER]


@given(data=st.data())
def test_ranks_are_those_of_a_stable_sort(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1))
    probabilities = np.array(rows, np.float32) / 12 + 0.01
    labels = np.array([row[0] for row in rows])
    order = np.argsort(-probabilities, axis=1, kind="stable")
    expected = np.argmax(order == labels[:, None], axis=1)
    assert ranks(probabilities, labels).tolist() == expected.tolist()


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
        ({"meta": {"classes": ["one"]}}, "2 columns"),
    ],
)
def test_contents_that_do_not_fit_are_refused_writing_and_reading(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = tmp_path / "a.npz"
    bad = example(**changes)
    with pytest.raises(UserError) as caught:
        write_predictions(path, bad)
    assert said in str(caught.value)
    assert not path.exists()
    meta = np.array('{"format": 1, "classes": ["one"]}' if "meta" in changes else '{"format": 1}')
    np.savez(path, ids=bad.ids, labels=bad.labels, probabilities=bad.probabilities, meta=meta)
    with pytest.raises(UserError) as caught:
        read_predictions(path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("meta", ["[]", "{", '{"format": 2}', "{}"])
def test_another_meta_is_refused(tmp_path: Path, meta: str) -> None:
    good = example()
    np.savez(
        tmp_path / "a.npz", ids=good.ids, labels=good.labels, probabilities=good.probabilities,
        meta=np.array(meta),
    )  # fmt: skip
    with pytest.raises(UserError, match=r"a\.npz: "):
        read_predictions(tmp_path / "a.npz")


@given(keep=st.integers(0, 1500), flip=st.integers(0, 255))
def test_a_damaged_file_is_refused_or_unchanged(
    tmp_path_factory: pytest.TempPathFactory, keep: int, flip: int
) -> None:
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


def test_a_pickle_in_it_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch executed",)

    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", ids=np.array([Malicious()], dtype=object))
    with pytest.raises(UserError, match="not"):
        read_predictions("a.npz")
    assert not (tmp_path / "executed").exists()


def test_missing_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_predictions(tmp_path / "absent.npz")
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(UserError, match="not predictions"):
        read_predictions(tmp_path / "one.npy")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "x")
    (tmp_path / "other.npz").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="has no 'ids'"):
        read_predictions(tmp_path / "other.npz")


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        write_predictions(tmp_path / "absent" / "a.npz", example())


@pytest.mark.parametrize("name", ["ids", "labels", "probabilities"])
def test_the_byte_order_of_another_machine_is_one_line(tmp_path: Path, name: str) -> None:
    arrays = {key: getattr(example(), key) for key in ("ids", "labels", "probabilities")}
    arrays[name] = arrays[name].astype(arrays[name].dtype.newbyteorder())
    np.savez(tmp_path / "a.npz", **arrays, meta=np.array('{"format": 1}'))
    with pytest.raises(UserError, match=f"{name!r} is in the byte order of another machine"):
        read_predictions(tmp_path / "a.npz")


def test_compressed_arrays_are_refused_unread(tmp_path: Path) -> None:
    large = np.zeros((4_000_000, 2), np.float16)
    np.savez_compressed(
        tmp_path / "a.npz", ids=example().ids, labels=example().labels, probabilities=large,
        meta=np.array('{"format": 1}'),
    )  # fmt: skip
    with pytest.raises(UserError, match="'probabilities' is longer than the file"):
        read_predictions(tmp_path / "a.npz")


@pytest.mark.parametrize("meta", [9000 * "[", '{"format": 1e999}', '{"format": 1, "crops": []}'])
def test_a_description_that_is_none_is_one_line(tmp_path: Path, meta: str) -> None:
    arrays = {key: getattr(example(), key) for key in ("ids", "labels", "probabilities")}
    np.savez(tmp_path / "a.npz", **arrays, meta=np.array(meta))
    for read in (read_predictions, read_meta):
        with pytest.raises(UserError, match="'meta'"):
            read(tmp_path / "a.npz")
