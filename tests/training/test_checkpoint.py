"""Checkpoints: whole or refused, never half, never code."""

import errno
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bn_inception import UserError
from bn_inception.network import checkpoint


def state(step: int) -> dict[str, Any]:
    return {"step": step, "network": {"weight": torch.full((100,), float(step))}}


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(state(3), tmp_path)
    loaded = checkpoint.load(tmp_path / "last.pt")
    assert loaded["step"] == 3
    assert torch.equal(loaded["network"]["weight"], torch.full((100,), 3.0))
    torch.load(tmp_path / "last.pt", weights_only=True)


def test_the_one_before_is_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(state(step), tmp_path)
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 3
    assert checkpoint.load(tmp_path / "previous.pt")["step"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    checkpoint.save(state(2), folder)
    return (folder / "last.pt").read_bytes()


@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@example(where=0.7576444666934418, flip=1)  # an entry's flag "encrypted"
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_byte_never_changes_what_is_loaded(
    tmp_path: Path, whole: bytes, where: float, flip: int
) -> None:
    checkpoint.save(state(1), tmp_path)
    checkpoint.save(state(2), tmp_path)
    damaged = bytearray(whole)
    damaged[int(where * len(damaged))] ^= flip
    (tmp_path / "last.pt").write_bytes(damaged)
    said: list[str] = []
    loaded = checkpoint.load_latest(tmp_path, said.append)
    assert loaded is not None
    # Either a byte that carries nothing (zip padding), or the checkpoint before, and said so.
    step = loaded["step"]
    assert torch.equal(loaded["network"]["weight"], torch.full((100,), float(step)))
    assert (step == 2 and not said) or (step == 1 and "continuing from previous.pt" in said[0])


@pytest.mark.parametrize("keep", [0, 1, 100, -100, -1])
def test_a_cut_file_falls_back_and_says_so(tmp_path: Path, whole: bytes, keep: int) -> None:
    checkpoint.save(state(1), tmp_path)
    checkpoint.save(state(2), tmp_path)
    (tmp_path / "last.pt").write_bytes(whole[:keep])
    said: list[str] = []
    loaded = checkpoint.load_latest(tmp_path, said.append)
    assert loaded is not None and loaded["step"] == 1
    assert "last.pt: damaged" in said[0]


def test_none_at_all_and_none_whole(tmp_path: Path) -> None:
    assert checkpoint.load_latest(tmp_path, print) is None
    (tmp_path / "last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"last\.pt: damaged"):
        checkpoint.load_latest(tmp_path, print)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("load", [checkpoint.load, checkpoint.load_network])
def test_a_pickle_that_runs_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[[Path], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "network": Malicious()}, tmp_path / "last.pt", pickle_module=pickle)
    with pytest.raises(UserError, match=r"refused, .*any code") as caught:
        load(tmp_path / "last.pt")
    # Torch's own message advises to load it all the same.
    assert not re.search("weights_only|allowlist|can still be loaded", str(caught.value))
    assert not (tmp_path / "executed").exists()


def test_another_programs_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="not written by bn-inception"):
        checkpoint.load(tmp_path / "last.pt")


def test_a_full_disk_keeps_the_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(state(1), tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        checkpoint.save(state(2), tmp_path)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 1


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EACCES, errno.EMLINK])
def test_without_hard_links_the_one_before_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    synced = []
    sync = os.fsync

    def no_links(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    def noting(descriptor: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "fsync", noting)
    for step in (1, 2, 3):
        checkpoint.save(state(step), tmp_path)
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 3
    assert checkpoint.load(tmp_path / "previous.pt")["step"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]
    assert synced.count(".previous.pt.tmp") == 2


def test_a_lost_last_one_is_said(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(state(step), tmp_path)
    (tmp_path / "last.pt").unlink()
    said: list[str] = []
    loaded = checkpoint.load_latest(tmp_path, said.append)
    assert loaded is not None and loaded["step"] == 1
    assert "last.pt: missing" in said[0] and "from previous.pt at step 1" in said[0]


def test_another_file_under_its_name_is_said(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save({**state(step), "optimizer": {}}, tmp_path)
    checkpoint.save(state(2), tmp_path, checkpoint.BEST)
    (tmp_path / "best.pt").replace(tmp_path / "last.pt")
    said: list[str] = []
    loaded = checkpoint.load_latest(tmp_path, said.append, ["optimizer"])
    assert loaded is not None and loaded["step"] == 1
    assert "last.pt: holds no optimizer" in said[0]


def test_compressed_entries_are_refused_unread(tmp_path: Path) -> None:
    checkpoint.save({"step": 1, "network": {"weight": torch.zeros(1 << 20)}}, tmp_path)
    with (
        zipfile.ZipFile(tmp_path / "last.pt") as plain,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for entry in plain.infolist():
            small.writestr(entry.filename, plain.read(entry))
    with pytest.raises(UserError, match="its entries are longer than the file"):
        checkpoint.load(tmp_path / "small.pt")
