"""Recipes and scales of one's own, and the names of runs that were changed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_inception import UserError
from bn_inception.cli.train import read
from bn_inception.config import compose
from bn_inception.config.own import search_path
from bn_inception.record.naming import LONGEST, suffix

WIDE = "# @package _global_\ndefaults: [bn_x30]\nnetwork:\n  dropout: 0.1\n"


def name(*overrides: str) -> str:
    return str(read(overrides)["run"]["name"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own set" / "recipe").mkdir(parents=True)
    (tmp_path / "own set" / "recipe" / "wide.yaml").write_text(WIDE)
    (tmp_path / "large.yaml").write_text("defaults: [cpu]\nname: large\nwidth: 0.5\n")
    return tmp_path / "own set"


def test_a_file_stands_in_place_of_a_choice(folder: Path) -> None:
    usual = compose("train", ["recipe=bn_x30", "scale=cpu"])
    for file in (folder / "recipe" / "wide.yaml", "own set/recipe/wide.yaml"):
        composed = compose("train", [f"recipe={file}", "scale=large.yaml"])
        assert composed["network"]["dropout"] == 0.1
        assert composed["optimizer"]["learning_rate"] == 0.045  # BN-x30's
        assert composed["network"]["width"] == 0.5
        assert composed["train"]["steps"] == usual["train"]["steps"]
    assert name(f"recipe={file}", "scale=large.yaml") == "bn_x30-large-synthetic-seed0-wide"


def test_a_folder_of_ones_own_is_beside_the_packages(folder: Path) -> None:
    searched = ["recipe=wide", search_path([str(folder)])]
    assert compose("train", searched)["network"]["dropout"] == 0.1
    assert name(*searched) == "bn_x30-demo-synthetic-seed0-wide"


def test_what_would_never_be_read_or_is_no_recipe_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        search_path(["nowhere"])
    (folder / "recipe" / "bn_x5.yaml").write_text(WIDE)
    with pytest.raises(UserError, match=r"bn_x5\.yaml has the name of a file of the package"):
        compose("train", [search_path([str(folder)])])
    (folder / "broken.yaml").write_text("a: [")
    for file, said in (("none.yaml", "No such file"), ("own set/broken.yaml", "cannot be read")):
        with pytest.raises(UserError, match=said):
            compose("train", [f"recipe={file}"])


def test_a_name_carries_what_was_changed_and_nothing_else() -> None:
    usual = "bn_x5-demo-synthetic-seed0"
    same = ("train.steps=9", "run.root=x", "machine=cpu", "machine.threads=1", "data.workers=0",
            "milestones=[0.5]", "data.cache=x", "run.resume=auto")  # fmt: skip
    assert name(*same) == name() == usual
    changed = ("network.dropout=0.40", "batch=x8", "network.per_activation=[5a,5b]")
    assert name(*changed) == name(*reversed(changed), *same)
    assert name(*changed) == f"{usual}-x8-dropout0.4-per_activation-5a-5b"
    assert name("recipe=ensemble/1", "run.seed=3") == "ensemble_1-demo-synthetic-seed3"
    assert name("run.name=mine", *changed) == "mine"


@given(st.dictionaries(st.text("abc._", min_size=1), st.text(max_size=40), max_size=9))
def test_a_suffix_is_part_of_a_files_name(changed: dict[str, str]) -> None:
    words = [f"{key}={value}" for key, value in changed.items()]
    text = suffix(words)
    assert text == suffix(words[::-1])
    assert len(text) <= LONGEST + 1
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("recipe=BN-x5", "write recipe=bn_x5"),
        ("recipe=BN-Baseline", "write recipe=bn_baseline"),
        ("lr=0.1", r"write optimizer\.learning_rate=0\.1"),
        ("epochs=90", "write train.steps='90 epochs'"),
        ("batch_size=64", r"write batch\.images=64"),
        ("seed=1", r"close: run\.seed"),
        ("milestones=0.72", r"write a list, milestones=\[0\.72\]"),
    ],
)
def test_what_others_call_a_thing_leads_to_its_key(override: str, said: str) -> None:
    from bn_inception.config import run_config

    with pytest.raises(UserError, match=said):
        run_config(compose("train", [override]))
