"""Files written whole or not at all."""

import json
import os
from pathlib import Path

import pytest

from bn_inception.errors import UserError
from bn_inception.files import write_json, write_text


def test_the_content_is_on_disk_before_the_name_and_the_name_before_the_return(
    tmp_path, monkeypatch
):
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (calls.append("replace"), replace(a, b))[1])
    write_text(tmp_path / "a", "old")
    assert calls == ["fsync", "replace", "fsync"]

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UserError, match="No space left on device"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    with pytest.raises(UserError, match="cannot be written"):
        write_text(tmp_path / "missing" / "a", "text")


def test_json_never_holds_nan_and_takes_a_file_name_that_is_not_utf8(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()
    name = os.fsdecode(b"a\xff")
    write_json(tmp_path / "a.json", {name: 1})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {name: 1}
