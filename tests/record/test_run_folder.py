"""The run folder, files that are written whole or not at all, and `environment.json`."""

import errno
import fcntl
import getpass
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from processes import run_ranks
from small_runs import contents

from bn_inception.errors import UserError
from bn_inception.files import write_json, write_text
from bn_inception.record.environment import command_line, describe, git_state, write_environment
from bn_inception.record.run_folder import RunFolder


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "/a", ".hidden", "-x", "a b", "a\n", "ä" * 3, "x" * 201]
)
def test_a_bad_name_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"run\.name"):
        RunFolder(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_is_synced_in_its_parents(tmp_path, monkeypatch):
    """A power cut must not take the run with all that it has synced."""
    synced, sync = set(), os.fsync

    def noting(descriptor):
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    with RunFolder(tmp_path / "outputs", "new") as folder:
        folder.create()
    assert {str(tmp_path), str(tmp_path / "outputs")} <= synced


def test_create_makes_the_layout(tmp_path):
    folder = RunFolder(tmp_path / "outputs", "bn_x5-cpu.seed0")
    for _ in range(2):  # empty folders of a run that never began are no run
        with folder:
            assert not folder.has_run()
            folder.create()
    assert folder.tensorboard.is_dir() and folder.checkpoints.is_dir()
    write_text(folder.config, "recipe: bn_x5\n")
    assert folder.config.read_text() == "recipe: bn_x5\n" and folder.has_run()


def test_what_is_there_is_refused_untouched_and_the_remedies_named(tmp_path):
    with RunFolder(tmp_path, "run") as folder:
        folder.create()
        write_text(folder.config, "x: 1\n")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "thesis.txt").write_text("mine")
    before = contents(tmp_path)
    for name in ("run", "others"):
        with pytest.raises(UserError) as error:
            RunFolder(tmp_path, name).create()
        for words in (f"{tmp_path / name}: holds a run", "run.resume=must", "run.name", "delete"):
            assert words in str(error.value)
    assert contents(tmp_path) == before


def test_resuming_a_missing_run_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no run to resume.*run\.resume=never"):
        RunFolder(tmp_path, "a").open_for_resume()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [("a",), ("a", "b"), ("a", "b", "c")])
def test_a_file_in_its_place_is_a_user_error(tmp_path, place):
    (tmp_path / "a").write_text("")
    *folders, name = place
    with pytest.raises(UserError, match=r"cannot be created .* another run\.root or run\.name"):
        RunFolder(tmp_path.joinpath(*folders), name).create()


def test_a_second_writer_is_refused_until_the_first_closes(tmp_path):
    def refused(method):
        try:
            method(RunFolder(tmp_path, "a"))
        except UserError as error:
            return "another process is writing" in str(error)
        return False

    def attempts(rank):
        return [refused(RunFolder.create), refused(RunFolder.open_for_resume)]

    first = RunFolder(tmp_path, "a")
    first.create()
    assert run_ranks(1, lambda rank: refused(RunFolder.create)) == [True]
    write_text(first.config, "x: 1\n")
    assert run_ranks(1, attempts) == [[True, True]]
    first.close()
    assert run_ranks(1, attempts) == [[False, False]]


def test_a_killed_process_leaves_no_lock_though_its_forked_workers_live_on(tmp_path):
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        folder = RunFolder(tmp_path, "a")
        folder.create()
        write_text(folder.config, "x: 1")
        if os.fork() == 0:
            os.write(writer, b"%d" % os.getpid())
        time.sleep(60)
        os._exit(0)
    worker = int(os.read(reader, 20))
    with pytest.raises(UserError, match="another process is writing"):
        RunFolder(tmp_path, "a").open_for_resume()
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    with RunFolder(tmp_path, "a") as folder:
        folder.open_for_resume()
    os.kill(worker, signal.SIGKILL)  # which lived on until here


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with RunFolder(tmp_path, "a") as folder:
        folder.create()
    assert "no file locks" in caplog.text


def test_a_resumed_run_keeps_the_environment_it_was_started_in(tmp_path):
    with RunFolder(tmp_path, "a") as folder:
        folder.create()
        for commit, step in (("first", None), ("second", 100), ("third", 200)):
            write_environment(folder, "x: 1", {"git": {"commit": commit}}, step)
        environment = json.loads(folder.environment.read_text())
    assert environment["git"]["commit"] == "first"
    assert [(r["step"], r["git"]["commit"]) for r in environment["resumed"]] == [
        (100, "second"),
        (200, "third"),
    ]


@pytest.mark.parametrize("began", [True, False])
def test_what_a_kill_left_unwritten_is_no_run_and_goes(tmp_path, began):
    def killed(rank):
        folder = RunFolder(tmp_path, "a")
        folder.create()
        if began:
            write_text(folder.config, "x: 1")
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        write_text(folder.config, "x: 2")

    assert run_ranks(1, killed) == ["ended without a word"]
    assert any(name.endswith(".tmp") for name in contents(tmp_path))
    with RunFolder(tmp_path, "a") as folder:
        assert folder.has_run() == began
        (folder.open_for_resume if began else folder.create)()
        left = {str(folder.config): b"x: 1"} if began else {}
        assert contents(tmp_path) == left


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


def test_it_names_code_software_machine_and_data_and_not_whose_they_are(monkeypatch):
    arguments = ["/home/alice/.venv/bin/bn-inception", "train", "data.root=/home/alice/imagenet"]
    monkeypatch.setattr("sys.argv", arguments)
    environment = describe("sha256:abc", gpus=["NVIDIA H100"])
    assert environment["data_fingerprint"] == "sha256:abc"
    assert environment["gpus"] == ["NVIDIA H100"]
    assert environment["versions"]["torch"] and environment["versions"]["python"]
    assert environment["cpu"]["cores"] >= 1
    assert set(environment["git"]) == {"commit", "dirty"}
    text = json.dumps(environment)
    user = getpass.getuser()
    told = {"alice", socket.gethostname(), str(Path.cwd()), *([user] if user != "root" else [])}
    assert not [name for name in told if name in text]


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("recipe=bn_x5", "recipe=bn_x5"),
        ("train.steps=8 epochs", "train.steps=8 epochs"),
        ("data.root=../data/tiny", "data.root=../data/tiny"),
        ("outputs/a", "outputs/a"),
        ("recipe=ensemble/1", "recipe=ensemble/1"),
        ("data.root=/srv/alice/imagenet", "data.root=.../imagenet"),
        ("/srv/alice/run/", ".../run"),
        ("~/run", ".../run"),
        ("data.root=~bob/imagenet", "data.root=.../imagenet"),
        ("x=file:///srv/alice/a.txt", "x=.../a.txt"),
        ("runs=[/srv/alice/a,/srv/bob/b]", "runs=[.../a,.../b]"),
        ("data.root='/srv/alice smith/a'", "data.root='.../a'"),
    ],
)
def test_paths_of_the_machine_are_shortened(argument, shown):
    assert command_line(["/usr/bin/bn-inception", argument]) == ["bn-inception", shown]


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True)


def test_git_commit_and_dirty_flag(tmp_path, monkeypatch):
    # Set inside a git hook; it must not send the question to another repository.
    monkeypatch.delenv("GIT_DIR", raising=False)
    code = tmp_path / "bn_inception" / "errors.py"
    code.parent.mkdir()
    code.write_text("")
    assert git_state(tmp_path) == {"commit": None, "dirty": None}
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    assert git_state(tmp_path) == {"commit": None, "dirty": None}
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    state = git_state(tmp_path)
    assert (state["dirty"], len(str(state["commit"]))) == (False, 40)
    (tmp_path / "notes.txt").write_text("not code")
    assert git_state(tmp_path) == state
    code.write_text("changed")
    assert git_state(tmp_path) == {**state, "dirty": True}


def test_an_installed_package_is_not_the_checkout_around_it(tmp_path):
    # An environment that lies, ignored, inside some repository.
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "first", "--allow-empty")
    package = tmp_path / ".venv" / "bn_inception"
    package.mkdir(parents=True)
    (package / "errors.py").write_text("")
    assert git_state(package.parent) == {"commit": None, "dirty": None}


def test_without_git_nothing_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == {"commit": None, "dirty": None}
