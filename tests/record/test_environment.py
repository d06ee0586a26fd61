import getpass
import json
import socket
import subprocess
from pathlib import Path

import pytest

from bn_inception.record.environment import command_line, describe, git_state


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
