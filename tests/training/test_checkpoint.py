"""Checkpoints: whole or refused, never half, never code."""

import os
import pickle
import re
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bn_inception import UserError
from bn_inception.network import checkpoint


def state(step):
    network = {"weight": torch.full((100,), float(step))}
    return {"step": step, "network": network, "optimizer": {}}


@pytest.fixture
def folder(tmp_path):
    """With the checkpoints of steps 1 and 2."""
    for step in (1, 2):
        checkpoint.save(state(step), tmp_path)
    return tmp_path


def latest(folder):
    """The step of the newest whole checkpoint, and what was said about it."""
    said: list[str] = []
    loaded = checkpoint.load_latest(folder, said.append, ["optimizer"])
    assert torch.equal(loaded["network"]["weight"], torch.full((100,), float(loaded["step"])))
    return loaded["step"], said


def test_what_was_saved_is_loaded_and_the_one_before_is_kept(folder):
    assert latest(folder) == (2, [])
    assert checkpoint.load(folder / "previous.pt")["step"] == 1
    assert sorted(path.name for path in folder.iterdir()) == ["last.pt", "previous.pt"]
    torch.load(folder / "last.pt", weights_only=True)


@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@example(where=0.7576444666934418, flip=1)  # an entry's flag "encrypted"
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_byte_never_changes_what_is_loaded(folder, where, flip):
    whole = (folder / "last.pt").read_bytes()
    damaged = bytearray(whole)
    damaged[int(where * len(damaged))] ^= flip
    (folder / "last.pt").write_bytes(damaged)
    step, said = latest(folder)
    (folder / "last.pt").write_bytes(whole)
    # Either a byte that carries nothing (zip padding), or the checkpoint before, and said so.
    assert (step == 2 and not said) or (step == 1 and "continuing from previous.pt" in said[0])


@pytest.mark.parametrize("keep", [0, 1, 100, -100, -1])
def test_a_cut_file_falls_back_and_says_so(folder, keep):
    (folder / "last.pt").write_bytes((folder / "last.pt").read_bytes()[:keep])
    step, (said,) = latest(folder)
    assert step == 1 and "last.pt: damaged" in said


def test_none_at_all_and_none_whole(tmp_path):
    assert checkpoint.load_latest(tmp_path, print) is None
    (tmp_path / "last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"last\.pt: damaged"):
        checkpoint.load_latest(tmp_path, print)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize("load", [checkpoint.load, checkpoint.load_network])
def test_a_pickle_that_runs_code_is_refused(tmp_path, monkeypatch, load):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "network": Malicious()}, tmp_path / "last.pt", pickle_module=pickle)
    with pytest.raises(UserError, match=r"refused, .*any code") as caught:
        load(tmp_path / "last.pt")
    # Torch's own message advises to load it all the same.
    assert not re.search("weights_only|allowlist|can still be loaded", str(caught.value))
    assert not (tmp_path / "executed").exists()


def test_another_programs_checkpoint_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="not written by bn-inception"):
        checkpoint.load(tmp_path / "last.pt")


def test_compressed_entries_are_refused_unread(tmp_path):
    checkpoint.save({"step": 1, "network": {"weight": torch.zeros(1 << 20)}}, tmp_path)
    with (
        zipfile.ZipFile(tmp_path / "last.pt") as plain,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for entry in plain.infolist():
            small.writestr(entry.filename, plain.read(entry))
    with pytest.raises(UserError, match="its entries are longer than the file"):
        checkpoint.load(tmp_path / "small.pt")
