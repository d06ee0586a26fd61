"""Run folders from somebody else: nothing is resolved, fetched, followed or believed unread."""

import os
import shutil
from pathlib import Path

import pytest
from small_runs import TINY, write_images

from bn_inception import UserError
from bn_inception.cli.main import dispatch, main
from bn_inception.config import read_yaml
from bn_inception.config.resume import identity
from bn_inception.data import opening


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A short run; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("made")
    images = write_images(folder / "our: images #1")
    given = [f"data.root={images}", f"run.root={folder}", "run.name=run"]
    assert dispatch(["train", "recipe=bn_x5", *TINY, "train.steps=4", *given]) == 0
    return folder / "run"


@pytest.fixture
def sent(made, tmp_path):
    return shutil.copytree(made, tmp_path / "sent" / "run")


def edit(run, before, after):
    path = run / "config.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


READERS = ("compare", "claims", "evaluate")


def refused(run, said, *commands):
    for command in commands or READERS:
        with pytest.raises(UserError, match=said) as caught:
            dispatch([command, f"run={run}" if command == "evaluate" else str(run)])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("written", ["${oc.env:TOKEN}", '"\\x24{oc.env:TOKEN}"', "a-${run.seed}"])
def test_an_interpolation_is_refused_and_not_resolved(sent, written, monkeypatch, capsys):
    monkeypatch.setenv("TOKEN", "secret")
    edit(sent, "on_error: fail", f"on_error: {written}")
    refused(sent, r"config\.yaml: holds an interpolation")
    assert "secret" not in "".join(capsys.readouterr())


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * [f'*{before}'])}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "holds the alias"),
        ("a: " + 5000 * "[" + 5000 * "]", "nested more than"),
        ("a: " + 300_000 * "x", "more than 262,144 bytes"),
        ("seed: 1e999", "seed: inf is out of range"),
        ("seed: " + 400 * "9", "seed: an integer over 64 bits"),
        ("a: [", "cannot be read as YAML"),
        ("- a", "holds no configuration"),
        ("recipe: {name: 5}", r"recipe\.name is 5, not a name"),
        ("recipe: {name: $x}", r"recipe\.name is '\$x', not a name"),
        ("recipe: 5", r"recipe\.name is None, not a name"),
    ],
)
def test_a_configuration_that_is_none_is_one_line(sent, text, said):
    (sent / "config.yaml").write_text(text)
    refused(sent, said)


@pytest.mark.parametrize("which", ["config.yaml", "summary.json", "metrics.jsonl", "evaluation"])
def test_links_that_lead_out_are_not_followed(sent, tmp_path, which):
    outside = tmp_path / "outside"
    if which == "evaluation":
        outside.mkdir()
    else:
        shutil.copy(sent / which, outside)
        (sent / which).unlink()
    (sent / which).symlink_to(outside)
    refused(sent, f"{which}: a link that leads out of the run folder")
    assert not outside.is_dir() or not list(outside.iterdir())


def test_a_linked_checkpoint_is_not_read_and_a_linked_folder_not_written(sent, tmp_path):
    outside = shutil.move(sent / "checkpoints", tmp_path / "checkpoints")
    (sent / "checkpoints").symlink_to(outside)
    before = sorted(path.name for path in Path(outside).iterdir())
    for command in (
        ["evaluate", f"run={sent}"],
        ["export", f"run={sent}", f"output={tmp_path / 'exported'}"],
        ["train", f"run.root={sent.parent}", "run.name=run", "run.resume=must"],
    ):
        with pytest.raises(UserError, match="a link that leads out of the run folder"):
            dispatch(command)
    assert sorted(path.name for path in Path(outside).iterdir()) == before


def test_a_run_goes_on_from_its_folder_alone_wherever_that_is(sent, tmp_path, capsys):
    moved = sent.rename(tmp_path / "renamed")
    with pytest.raises(UserError, match=r"network\.dropout=0\.1: a run goes on as it was begun"):
        dispatch(["train", f"resume={moved}", "network.dropout=0.1"])
    with pytest.raises(UserError, match=r"nowhere: has no config\.yaml"):
        dispatch(["train", "resume=nowhere"])
    longer = ["train.steps=6", "machine.timeout=77"]
    assert dispatch(["train", f"resume={moved}/", *longer]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("renamed: finished") and str(moved) in printed.out
    assert "train.steps was 4, is 6 from step 4 on" in printed.err
    assert "machine.timeout was 600, is 77" in printed.err
    assert read_yaml(moved / "config.yaml")["train"]["steps"] == 6
    edit(moved, "kind: folder\n  root: ", "kind: shards\n  root: http://127.0.0.1:9/x #")
    with pytest.raises(UserError, match=r"data\.root: http://127\.0\.0\.1:9/x.* stands in"):
        dispatch(["train", f"resume={moved}"])


def test_a_folder_may_be_reached_by_a_link_and_hold_links_within(sent, tmp_path):
    (tmp_path / "linked").symlink_to(sent)
    (sent / "newest.pt").symlink_to("checkpoints/last.pt")
    assert dispatch(["compare", str(tmp_path / "linked"), "baseline=bn_x5"]) == 0


@pytest.mark.timeout(60)
def test_a_pipe_is_not_waited_for(sent):
    (sent / "config.yaml").unlink()
    os.mkfifo(sent / "config.yaml")
    refused(sent, r"config\.yaml: neither a file nor a folder")


def test_evaluate_opens_no_url_and_no_cache_because_a_run_names_it(sent, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(opening, "_open_shards", opened.append)  # gives None, no sources
    edit(sent, "kind: folder\n  root: ", "kind: shards\n  root: http://127.0.0.1:9/theirs #")
    edit(sent, "cache: ", f"cache: {tmp_path / 'theirs'} #")
    assert read_yaml(sent / "config.yaml")["data"]["cache"] == str(tmp_path / "theirs")
    refused(sent, r"data\.root: http://127\.0\.0\.1:9/theirs stands in", "evaluate")
    assert opened == []
    with pytest.raises(TypeError):
        dispatch(["evaluate", f"run={sent}", "data.root=http://127.0.0.1:9/mine"])
    assert opened[0].root == "http://127.0.0.1:9/mine"
    assert opened[0].cache == "~/.cache/bn-inception"


@pytest.mark.parametrize("file", ["summary.json", "metrics.jsonl"])
def test_records_without_end_are_not_read(sent, file):
    os.truncate(sent / file, 1 << 40)
    refused(sent, f"{file}: .*more than", "compare")


def test_the_page_shows_no_path_of_this_machine(sent, tmp_path):
    assert "our: images #1" in (sent / "config.yaml").read_text()
    output = f"output={tmp_path / 'report'}"
    assert dispatch(["compare", str(sent), "baseline=bn_x5", output]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert ".../our: images #1" in page
    assert str(sent.parents[2].name) not in page.replace("our: images #1", "")


@pytest.mark.parametrize("command", [["compare", "{}"], ["evaluate", "checkpoint={}",
                         "data=folder", "data.root=x", "output=x.npz"]])  # fmt: skip
def test_no_control_character_of_a_name_reaches_the_terminal(command, capsys):
    with pytest.raises(SystemExit):
        main([word.format("no\x1b[31mred\x9b\u202esuch\x07") for word in command])
    said = capsys.readouterr().err
    assert "\\x1b" in said and "\\u202e" in said
    assert not set("\x1b\x9b\u202e\x07") & set(said)


def test_equal_configurations_have_one_identity():
    config = {"optimizer": {"momentum": 1}, "train": {"steps": 3}, "milestones": [1]}
    same = {"milestones": [1.0], "train": {"steps": 9}, "optimizer": {"momentum": 1.0}}
    assert identity(config) == identity(same)
    assert identity(config) != identity({**same, "milestones": [0.5]})
