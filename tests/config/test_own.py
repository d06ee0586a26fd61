"""Recipes and scales of one's own, the names of runs that were changed, and which may continue."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_inception import UserError
from bn_inception.cli.train import read
from bn_inception.config import compose
from bn_inception.config.compose import search_path
from bn_inception.config.resume import check_unchanged
from bn_inception.record.run_folder import LONGEST, suffix

WIDE = "# @package _global_\ndefaults: [bn_x30]\nnetwork:\n  dropout: 0.1\n"
OWN = {
    "recipe/wide.yaml": WIDE,
    "scale/large.yaml": "defaults: [cpu]\nname: large\nwidth: 0.5\n",
    "data/mine.yaml": "defaults: [folder]\nroot: photos\n",
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of files of one's own, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name, content in OWN.items():
        path = tmp_path / "own set" / name
        path.parent.mkdir(parents=True)
        path.write_text(content)
    return tmp_path / "own set"


def name(*overrides):
    return str(read(overrides)["run"]["name"])


@pytest.mark.parametrize("way", ["folder", "files", "absolute files"])
def test_ones_own_stand_beside_the_packages(own, way):
    if way == "folder":
        given = ["recipe=wide", "scale=large", "data=mine", search_path(["own set"])]
    else:
        place = Path("own set") if way == "files" else own
        given = [f"{name.partition('/')[0]}={place / name}" for name in OWN]
    composed = compose("train", given)
    assert composed["network"]["dropout"] == 0.1 and composed["network"]["width"] == 0.5
    assert composed["recipe"]["learning_rate"] == 0.045  # BN-x30's
    assert composed["data"]["root"] == "photos"
    assert name(*given) == "bn_x30-large-folder-seed0-mine-wide"


def test_a_folder_whose_files_would_not_be_read_is_refused(own):
    (own / "recipe" / "bn_x5.yaml").write_text(WIDE)
    with pytest.raises(UserError, match=r"bn_x5\.yaml has the name of a file of the package"):
        search_path([str(own)])
    with pytest.raises(UserError, match="nowhere: no such folder"):
        search_path(["nowhere"])


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("none.yaml", None, "No such file"),
        ("broken.yaml", "a: [", "cannot be read"),
        ("list.yaml", "- a", "is not written as the files of configs/recipe/ are"),
        ("number.yaml", "defaults: 5", "is not written as the files of configs/recipe/ are"),
        ("bn_x5.yaml", WIDE, "has the name of a file of the package"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(file, content, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(file).write_text(content)
    with pytest.raises(UserError, match=f"^recipe={file}: .*{said}"):
        compose("train", [f"recipe={file}"])


def test_a_name_carries_what_was_changed_and_nothing_else():
    usual = "bn_x5-demo-synthetic-seed0"
    same = ("train.steps=9", "run.root=x", "machine=cpu", "machine.threads=1", "data.workers=0",
            "milestones=[0.5]", "data.cache=x", "run.resume=auto")  # fmt: skip
    assert name(*same) == name() == usual
    changed = ("network.dropout=0.40", "batch=x8", "network.per_activation=[5a,5b]")
    assert name(*changed) == name(*reversed(changed), *same)
    assert name(*changed) == f"{usual}-x8-dropout0.4-per_activation-5a-5b"
    assert name("network.auxiliary_head=FALSE") == f"{usual}-auxiliary_headfalse"
    assert name("recipe=ensemble/1", "run.seed=3") == "ensemble_1-demo-synthetic-seed3"
    assert name("run.name=mine", *changed) == "mine"
    # Not a folder called `~`.
    assert compose("train", ["run.root=~/runs"])["run"]["root"] == str(Path.home() / "runs")


@given(st.dictionaries(st.text("abc._", min_size=1), st.text(max_size=40), max_size=9))
def test_a_suffix_is_part_of_a_files_name(changed):
    words = [f"{key}={value}" for key, value in changed.items()]
    text = suffix(words)
    assert text == suffix(words[::-1])
    assert len(text) <= LONGEST + 1
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")


@pytest.mark.parametrize("lacking", [True, False])
def test_a_key_that_makes_another_run_is_named_with_both_values(lacking):
    before = compose("train", [])
    before["batch"]["norm_group"] = 16
    if lacking:  # which makes it another one too
        del before["batch"]["norm_group"]
    was = "None" if lacking else "16"
    with pytest.raises(UserError, match=rf"batch\.norm_group was {was}, is 32"):
        check_unchanged(before, compose("train", []), "old")
