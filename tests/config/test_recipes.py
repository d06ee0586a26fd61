"""The recipes and scales, against the table of BN section 4.2 and Figure 3, and their networks."""

import pytest
import torch

import bn_inception
from bn_inception import UserError
from bn_inception.config import compose, run_config
from bn_inception.config.compose import flatten
from bn_inception.files import configs_folder
from bn_inception.paper.results import ENSEMBLE_MODELS, FIGURE_3

SLOW, FAST = 320_292, 53_382
COLUMNS = (
    "optimizer.learning_rate", "optimizer.weight_decay", "network.dropout",
    "network.local_response_normalization", "order.within_shard_shuffling",
    "augmentation.photometric", "network.normalization", "network.nonlinearity",
    "optimizer.decay_every", "train.steps",
)  # fmt: skip
RECIPES = {
    "inception": (0.0015, 2e-4, 0.4, True, False, "full", "none", "relu", SLOW, 31e6),
    "bn_baseline": (0.0015, 2e-4, 0.4, True, False, "full", "batch", "relu", SLOW, 16e6),
    "bn_x5": (0.0075, 4e-5, 0.0, False, True, "reduced", "batch", "relu", FAST, 6e6),
    "bn_x30": (0.045, 4e-5, 0.0, False, True, "reduced", "batch", "relu", FAST, 6e6),
    "bn_x5_sigmoid": (0.0075, 4e-5, 0.0, False, True, "reduced", "batch", "sigmoid", FAST, 6e6),
    "inception_x5": (0.0075, 2e-4, 0.4, True, False, "full", "none", "relu", SLOW, 6e6),
    "inception_sigmoid": (0.0015, 2e-4, 0.4, True, False, "full", "none", "sigmoid", SLOW, 6e6),
}
COMMON = {
    "optimizer.momentum": 0.9, "optimizer.decay_factor": 0.96, "batch.images": 32,
    "network.width": 1.0, "network.image_size": 224, "network.auxiliary_head": True,
    "network.pool_projection": 96,
}  # fmt: skip
SCALES = {"paper": (224, 1.0), "small": (64, 1.0), "cpu": (32, 0.25), "demo": (32, 0.125)}


def values(*overrides):
    """Every key of a configuration that the schema has accepted."""
    composed = compose("train", overrides)
    run_config(composed)
    return dict(flatten(composed))


@pytest.mark.parametrize(
    "path", ["/home/jürgen/x", "~/photos (1)", "/a=b,c#d&e", "it's", 'a "b" c', "/plain", "a:b"]
)
def test_a_path_needs_no_quotes_of_its_own(path):
    assert compose("train", [f"data.root={path}"])["data"]["root"] == path


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_at_paper_scale_is_the_papers(recipe):
    at_paper = values(f"recipe={recipe}", "scale=paper")
    assert at_paper["recipe.name"] == recipe
    assert tuple(at_paper[key] for key in COLUMNS) == RECIPES[recipe]
    assert COMMON.items() <= at_paper.items()


def test_a_run_is_long_enough_for_what_the_paper_reports_of_it():
    for name, row in FIGURE_3.items():
        assert RECIPES[name][-1] >= max(row.steps_to_72_2 or 0, row.maximum_at_step or 0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_scale_divides_every_duration_by_one_factor(recipe, scale):
    paper, here = (values(f"recipe={recipe}", f"scale={name}") for name in ("paper", scale))
    for key in ("train.steps", "train.start_check", "optimizer.decay_every"):
        assert paper[key] / here[key] == pytest.approx(here["scale.compression"], rel=1e-9)
    assert (here["network.image_size"], here["network.width"]) == SCALES[scale]
    # The rates of all recipes change by one factor, and nothing else of a recipe does.
    rate = paper["optimizer.learning_rate"] * here["scale.rate_factor"]
    assert here["optimizer.learning_rate"] == pytest.approx(rate)
    for key in ("optimizer.weight_decay", "network.dropout"):
        assert here[key] == paper[key]


def test_a_larger_batch_sees_the_same_images():
    larger = values("recipe=bn_x30", "scale=paper", "batch.images=256")
    assert (larger["train.steps"], larger["optimizer.decay_every"]) == (750_000, 53_382 / 8)


def test_a_duration_given_by_hand_is_taken_as_it_is():
    given = values("scale=cpu", "train.steps=8 epochs", "train.evaluate_every=70")
    assert (given["train.steps"], given["train.evaluate_every"]) == ("8 epochs", 70)


MEMBERS = [f"ensemble/{number}" for number in range(1, ENSEMBLE_MODELS + 1)]
ALLOWED = {"network.initial_weight_gain", "network.dropout", "network.per_activation"}


def changes(member):
    base, changed = (values(f"recipe={recipe}", "scale=paper") for recipe in ("bn_x30", member))
    named = ("recipe.name", "run.name")
    return {key: changed[key] for key in changed.keys() - named if changed[key] != base[key]}


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_is_bn_x30_with_some_of_the_changes(member):
    changed = changes(member)
    assert changed and changed.keys() <= ALLOWED
    assert changed.get("network.dropout", 0.05) in (0.05, 0.10)
    assert changed.get("network.initial_weight_gain", 2.0) > 1
    whole = values(f"recipe={member}", "scale=paper")
    assert whole["train.steps"] == 6_000_000
    assert whole["run.name"] == f"{member.replace('/', '_')}-paper-synthetic-seed0"
    text = (configs_folder() / "recipe" / f"{member}.yaml").read_text()
    assert "4.2.3" in text and "Chosen:" in text
    assert f"bn-inception train recipe={member} scale=paper" in text


def test_the_members_differ_and_each_change_is_used():
    made = [changes(member) for member in MEMBERS]
    assert all(made.count(changed) == 1 for changed in made)
    assert set().union(*made) == ALLOWED
    assert {changed.get("network.dropout") for changed in made} == {None, 0.05, 0.10}


def test_the_readings_reach_the_network():
    readings = {"pool_projection": 128, "first_convolution": "full", "convolution_bias": True}
    network = bn_inception.build_network(auxiliary_head=False, **readings)
    assert sum(p.numel() for p in network.parameters()) == 11_295_240


def test_main_and_auxiliary_logits_in_training_and_logits_in_evaluation():
    network = bn_inception.build_network("bn_x5", 7, width=0.125, image_size=32)
    images = torch.zeros(2, 3, 32, 32)
    main, auxiliary = network.train()(images)
    assert main.shape == auxiliary.shape == (2, 7)
    assert network.eval()(images).shape == (2, 7)


def test_the_seed_makes_the_weights():
    def weights(seed):
        network = bn_inception.build_network("bn_x5", 7, width=0.125, image_size=32, seed=seed)
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"recipe": "bn_x6"}, "recipe=bn_x6.*close: bn_x"),
        ({"depth": 3}, "there is no key network.depth"),
        ({"pool_projection": 64}, "pool_projection"),
        ({"first_convolution": "whole"}, "separable, full"),
        ({"width": 0.0}, "width"),
        ({"image_size": 8}, "image"),
        ({"num_classes": 1}, "classes"),
    ],
)
def test_what_cannot_be_built_is_named(arguments, named):
    with pytest.raises(UserError, match=named):
        bn_inception.build_network(**arguments)
