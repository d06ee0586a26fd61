"""The six members of section 4.2.3's ensemble: BN-x30, changed by what the text names."""

import pytest

from bn_inception import UserError
from bn_inception.config import compose, run_config
from bn_inception.config.compose import flatten
from bn_inception.files import configs_folder
from bn_inception.paper.results import ENSEMBLE_DROPOUTS, ENSEMBLE_MODELS, ENSEMBLE_STEPS

MEMBERS = [f"ensemble/{number}" for number in range(1, ENSEMBLE_MODELS + 1)]
ALLOWED = {"network.initial_weight_gain", "network.dropout", "network.per_activation"}


def changes(member: str) -> dict[str, object]:
    base = dict(flatten(compose("train", ["recipe=bn_x30", "scale=paper"])))
    changed = dict(flatten(compose("train", [f"recipe={member}", "scale=paper"])))
    return {
        key: value
        for key, value in changed.items()
        if value != base[key] and key not in ("recipe.name", "run.name")
    }


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_is_bn_x30_with_some_of_the_changes(member: str) -> None:
    changed = changes(member)
    assert changed and changed.keys() <= ALLOWED
    assert changed.get("network.dropout", 0.05) in ENSEMBLE_DROPOUTS
    gain = changed.get("network.initial_weight_gain", 2.0)
    assert isinstance(gain, float) and gain > 1
    config = run_config(compose("train", [f"recipe={member}", "scale=paper"]))
    assert config.train.steps == ENSEMBLE_STEPS
    assert config.run.name == f"{member.replace('/', '_')}-paper-synthetic-seed0"


def test_the_members_differ_and_each_change_is_used() -> None:
    made = [changes(member) for member in MEMBERS]
    assert all(made.count(changed) == 1 for changed in made)
    assert set().union(*made) == ALLOWED
    assert {changed["network.dropout"] for changed in made if "network.dropout" in changed} == set(
        ENSEMBLE_DROPOUTS
    )


@pytest.mark.parametrize("member", MEMBERS)
def test_the_file_says_what_was_chosen_and_how_to_run_it(member: str) -> None:
    text = (configs_folder() / "recipe" / f"{member}.yaml").read_text()
    assert "4.2.3" in text and "Chosen:" in text
    assert f"bn-inception train recipe={member} scale=paper" in text


@pytest.mark.parametrize("unknown", ["ensemble/9", "ensembl/1", "ensemble"])
def test_an_unknown_member_is_refused_with_the_choices(unknown: str) -> None:
    with pytest.raises(UserError) as caught:
        compose("train", [f"recipe={unknown}"])
    for word in (f"recipe={unknown}", "ensemble/1", "ensemble/6", "bn_x30"):
        assert word in str(caught.value)
