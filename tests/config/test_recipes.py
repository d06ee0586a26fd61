"""The recipes and scales, against the table of BN section 4.2 and Figure 3."""

import pytest

from bn_inception.config import compose, run_config
from bn_inception.config.compose import flatten
from bn_inception.data.pixels.photometric import Photometric
from bn_inception.files import configs_folder
from bn_inception.network import Nonlinearity, Normalization
from bn_inception.paper.results import ENSEMBLE_DROPOUTS, ENSEMBLE_MODELS, ENSEMBLE_STEPS, FIGURE_3
from bn_inception.training.settings import RunConfig

SLOW, FAST = 320_292, 53_382
# rate, L2, dropout, LRN, within-shard, photometric, BN, nonlinearity, decay, steps
RECIPES = {
    "inception": (0.0015, 2e-4, 0.4, True, False, "full", False, "relu", SLOW, 31e6),
    "bn_baseline": (0.0015, 2e-4, 0.4, True, False, "full", True, "relu", SLOW, 16e6),
    "bn_x5": (0.0075, 4e-5, 0.0, False, True, "reduced", True, "relu", FAST, 6e6),
    "bn_x30": (0.045, 4e-5, 0.0, False, True, "reduced", True, "relu", FAST, 6e6),
    "bn_x5_sigmoid": (0.0075, 4e-5, 0.0, False, True, "reduced", True, "sigmoid", FAST, 6e6),
    "inception_x5": (0.0075, 2e-4, 0.4, True, False, "full", False, "relu", SLOW, 6e6),
    "inception_sigmoid": (0.0015, 2e-4, 0.4, True, False, "full", False, "sigmoid", SLOW, 6e6),
}
SCALES = {"paper": (224, 1.0), "small": (64, 1.0), "cpu": (32, 0.25), "demo": (32, 0.125)}


def config(*overrides: str) -> RunConfig:
    return run_config(compose("train", overrides))


@pytest.mark.parametrize(
    "path", ["/home/jürgen/x", "~/photos (1)", "/a=b,c#d&e", "it's", 'a "b" c', "/plain", "a:b"]
)
def test_a_path_needs_no_quotes_of_its_own(path: str) -> None:
    assert compose("train", [f"data.root={path}"])["data"]["root"] == path


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_at_paper_scale_is_the_papers(recipe: str) -> None:
    rate, decay, dropout, lrn, within, photometric, bn, nonlinearity, every, steps = RECIPES[recipe]
    c = config(f"recipe={recipe}", "scale=paper")
    assert c.recipe.name == recipe
    assert (c.optimizer.learning_rate, c.optimizer.weight_decay) == (rate, decay)
    assert (c.optimizer.momentum, c.optimizer.decay_factor) == (0.9, 0.96)
    assert (c.optimizer.decay_every, c.train.steps) == (every, steps)
    assert (c.network.dropout, c.network.local_response_normalization) == (dropout, lrn)
    assert c.network.normalization is (Normalization.batch if bn else Normalization.none)
    assert c.network.nonlinearity is Nonlinearity[nonlinearity]
    assert c.order.within_shard_shuffling is within
    assert c.augmentation.photometric is Photometric[photometric]
    assert c.batch.images == 32
    assert (c.network.width, c.network.image_size) == (1.0, 224)
    assert c.network.auxiliary_head and c.network.pool_projection == 96


def test_a_run_is_long_enough_for_what_the_paper_reports_of_it() -> None:
    for name, row in FIGURE_3.items():
        steps = config(f"recipe={name}", "scale=paper").train.steps
        assert isinstance(steps, int)
        assert steps >= (row.steps_to_72_2 or 0)
        assert steps >= (row.maximum_at_step or 0)


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_divides_every_duration_of_every_recipe_by_one_factor(scale: str) -> None:
    factors = set()
    for recipe in RECIPES:
        paper, here = config(f"recipe={recipe}", "scale=paper"), config(
            f"recipe={recipe}", f"scale={scale}"
        )  # fmt: skip
        for before, after in (
            (paper.train.steps, here.train.steps),
            (paper.train.start_check, here.train.start_check),
            (paper.optimizer.decay_every, here.optimizer.decay_every),
        ):
            assert not isinstance(before, str) and not isinstance(after, str)
            factors.add(round(before / after, 6))
        assert (here.network.image_size, here.network.width) == SCALES[scale]
        # The rates of all recipes change by one factor, and nothing else of a recipe does.
        rate = paper.optimizer.learning_rate * here.scale.rate_factor
        assert here.optimizer.learning_rate == pytest.approx(rate)
        assert here.optimizer.weight_decay == paper.optimizer.weight_decay
        assert here.network.dropout == paper.network.dropout
    assert len(factors) == 1
    assert factors.pop() == here.scale.compression


def test_a_larger_batch_sees_the_same_images() -> None:
    c = config("recipe=bn_x30", "scale=paper", "batch.images=256")
    assert (c.train.steps, c.optimizer.decay_every) == (750_000, 53_382 / 8)


def test_a_duration_given_by_hand_is_taken_as_it_is() -> None:
    c = config("scale=cpu", "train.steps=8 epochs", "train.evaluate_every=70")
    assert (c.train.steps, c.train.evaluate_every) == ("8 epochs", 70)


def test_the_name_of_a_run_is_no_clock() -> None:
    name = config("recipe=bn_x30", "scale=cpu", "run.seed=3").run.name
    assert name == "bn_x30-cpu-synthetic-seed3"


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
