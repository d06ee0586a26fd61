"""The description of shards: whatever stands in it, it is read or named in one line."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imagenets import made
from pictures import encoded, photo

from bn_inception.data import DataConfig, DataKind
from bn_inception.data.description import ShardMeta, read_meta
from bn_inception.data.intake.audit import audit
from bn_inception.errors import UserError


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A small set's shards and the content of their train.json."""
    root = tmp_path_factory.mktemp("described")
    for split in ("train", "val"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            (root / split / name / "1.jpg").write_bytes(encoded(photo(1)))
    shards = root / "shards"
    made(root, shards, shard_size=1)
    return shards, (shards / "train.json").read_bytes()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@st.composite
def altered(draw: st.DrawFn, values: dict[str, Any]) -> dict[str, Any]:
    """A description with another value of one field, or of one of a field's parts."""
    name = draw(st.sampled_from(sorted(values)))
    value = copy.deepcopy(values[name])
    new = draw(JSON)
    if isinstance(value, list | dict) and draw(st.booleans()):
        value[draw(st.sampled_from(sorted(value) if isinstance(value, dict) else [0, 1]))] = new
    else:
        value = new
    return {**values, name: value}


def parsed(text: bytes, folder: Path) -> ShardMeta:
    path = folder / "copy.json"
    path.write_bytes(text)
    return read_meta(path, "train", "train.json")


def assert_opens_or_says_why(root: Path) -> None:
    """All that reads a description works, or ends with one line that names the file."""
    for act in (
        lambda: audit(DataConfig(DataKind.shards, str(root), workers=0), lambda *words: None),
        lambda: made(root.parent, root, shard_size=1),
    ):
        try:
            act()
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
            str(error).encode()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_a_description_works_or_is_named(
    description: tuple[Path, bytes], data: st.DataObject
) -> None:
    root, whole = description
    values = data.draw(altered(json.loads(whole)))
    (root / "train.json").write_text(json.dumps(values))
    try:
        assert_opens_or_says_why(root)
        meta = parsed(json.dumps(values).encode(), root.parent)
        assert json.loads(meta.as_json()) == values
    except UserError as error:
        assert str(error).startswith("data.root: train.json ")
    finally:
        (root / "train.json").write_bytes(whole)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"shard_bytes": [None, 10240]}, r"shard_bytes is not a list of sizes.*: \[null, 10240\]"),
        ({"shard_bytes": [2**62, 2**62]}, "shard_bytes are more than any disk holds"),
        ({"index_sha256": []}, r"index_sha256 is not a SHA-256 of every column: \[\]"),
        ({"index_sha256": {}}, "index_sha256 is not"),
        ({"shard_sha256": ["../x", "../y"]}, "shard_sha256 is not a list of SHA-256"),
        ({"images": True}, "images is not a number over 0: true"),
        ({"shard_size": 0}, "shard_size is not a number over 0: 0"),
        ({"classes": {"a": 1}}, "classes is not a list of names"),
        ({"classes": ["a", "\ud800"]}, "classes is not a list of names"),
        ({"fingerprint": None}, "fingerprint is not a SHA-256: null"),
        ({"order": "another"}, "order is not 'stored_order"),
        ({"encoding": "x" * 9999, "split": 3}, "split is not text: 3"),
        ({"encoding": ["x" * 9999]}, r'encoding is not text: \["x+\.\.\.'),
    ],
)
def test_a_wrong_value_is_named_in_one_line(
    description: tuple[Path, bytes], tmp_path: Path, values: dict[str, Any], named: str
) -> None:
    text = json.dumps(json.loads(description[1]) | values).encode()
    with pytest.raises(UserError, match=rf"train\.json is damaged \({named}") as caught:
        parsed(text, tmp_path)
    assert len(str(caught.value)) < 300


def test_a_description_that_is_nested_without_end_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.json is damaged \(values are nested too deeply"):
        parsed(b"[" * 1_000_000, tmp_path)
