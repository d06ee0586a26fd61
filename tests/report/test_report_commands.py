"""The commands `claims` and `compare`, and how they read configurations."""

import json
import shlex
from pathlib import Path

import pytest
from report.conftest import write_evaluation

from bn_inception.cli.main import dispatch
from bn_inception.cli.run_arguments import as_configured, read_run_arguments
from bn_inception.config import compose, run_config, write_yaml
from bn_inception.errors import UserError
from bn_inception.network.normalization import scale_invariance
from bn_inception.record.summary import Summary
from bn_inception.report.runs import Run
from bn_inception.report.statements import STATEMENTS
from bn_inception.training.schedule import Schedule


def settings_of(config):
    """A run with this configuration."""
    return as_configured(Run("", Path(), Summary("", "", 0), (), ()), config)


def configured(*overrides):
    """The configuration of a run with these overrides."""
    return write_yaml(compose("train", overrides))


def test_a_run_as_committed_has_no_overrides():
    for recipe in ("inception", "bn_x30", "ensemble/2"):
        config = compose("train", [f"recipe={recipe}", "scale=cpu", "data=synthetic"])
        known = settings_of(config)
        assert (known.overrides, known.options, known.unknown) == ((), (), ())
        assert known.recipe_steps == config["train"]["steps"]


@pytest.mark.parametrize("compression", [12000, 12001, 11999.5])
def test_a_recipe_is_as_long_as_its_run(compression):
    """31e6 / 12000 is 2,583.3 steps: a run of 2,583 is whole."""
    config = compose("train", ["recipe=inception", f"scale.compression={compression}"])
    known = settings_of(config)
    assert known.recipe_steps == Schedule.of(run_config(config), images=4000).steps


@pytest.mark.parametrize(
    ("overrides", "options"),
    [
        # What is computed from another key does not count twice.
        ("scale.compression=500", ""),
        ("batch.images=64", ""),
        ("network.dropout=0.4", "run.seed=2"),
        ("train.steps=12", "train.log_every=2"),
        ("network.per_activation='[5a,5b]'", ""),
        ("train.evaluate_every=9", "train.checkpoint_every=7"),
        ("data.first_classes=20", ""),
        ("", "machine.threads=1 milestones='[0.1]'"),
        ("", "run.name='a b'"),
    ],
)
def test_overrides_and_options_as_they_are_copied(overrides, options):
    given = shlex.split(f"{overrides} {options}")
    known = settings_of(compose("train", ["recipe=bn_x5", "scale=cpu", *given]))
    assert " ".join(known.overrides) == overrides
    # The run's name carries its seed.
    assert " ".join(w for w in known.options if not w.startswith("run.name=bn")) == options


def test_what_a_configuration_lacks_makes_the_run_unknown():
    config = compose("train", ["recipe=bn_x5", "scale=cpu"])
    del config["scale"]["rate_factor"], config["machine"]["compile"], config["optimizer"]["warmup"]
    # What may differ, or is off now, does not count.
    assert settings_of(config).unknown == ("config.yaml lacks scale.rate_factor",)


def test_somebodys_own_recipe_is_compared_with_nothing():
    config = compose("train", ["recipe=bn_x5"])
    config["recipe"]["name"] = "mine"
    known = settings_of(config)
    assert known.overrides == () and "recipe=mine: there is no such recipe" in known.unknown[0]
    assert "run.seed=0" in known.options


def test_a_run_whose_settings_were_changed_on_the_way_is_labelled(make_run):
    config = configured("recipe=inception", "scale=cpu")
    folder = make_run("plain", "inception", [0.1] * 4, config=config).path
    changes = [
        {"step": 50, "changed": {"machine.threads": [None, 2], "run.resume": ["never", "auto"]}},
        {"step": 60, "changed": {"train.steps": [1000, 120]}},
        "broken",
    ]
    (folder / "environment.json").write_text(json.dumps({"changes": changes}))
    (run,), _ = read_run_arguments([str(folder)])
    assert run.unknown == ("changed at step 60: train.steps 1000 -> 120",)


@pytest.fixture
def outputs(make_run, tmp_path):
    """A folder as a person has it: runs, predictions and an ensemble."""
    curve = [0.05, 0.1, 0.2, 0.24, *[0.25] * 8]
    for name, recipe, top1, every, *changes in (
        ("plain", "inception", curve, 1000),
        ("fast", "bn_x5", [0.3, 0.4], 100),
        ("dropped", "bn_x5", [0.3, 0.35], 100, "network.dropout=0.4"),
    ):
        config = configured(f"recipe={recipe}", "scale=cpu", *changes)
        others = {"count": 10_000, "planned_steps": 31_000_000}
        folder = make_run(name, recipe, top1, every=every, config=config, **others).path.parent
    (folder / "six.npz").write_bytes(b"not read here")
    write_evaluation(folder / "six.json", "144", 0.2, models=6)
    return sorted(map(str, folder.iterdir()))


def assert_passed_over(written, outputs):
    """What a command wrote among the runs is none."""
    assert read_run_arguments([*outputs, str(written)]) == read_run_arguments(outputs)


def test_claims(outputs, tmp_path, capsys):
    folder = tmp_path / "judged"
    (tmp_path / "figure1.json").touch()  # as `mnist` writes
    assert_passed_over(tmp_path, outputs)
    assert dispatch(["claims", *outputs, f"output={folder}", "require=[2,7]"]) == 0
    text = capsys.readouterr().out
    assert "9 statements of the paper: 2 hold, 0 not, 0 undecided, 7 not tested" in text
    assert "bn_x5 needs 2." in text
    assert text.endswith(f"{folder}/claims.md\n{folder}/claims.json\n")
    assert len(json.loads((folder / "claims.json").read_text())["verdicts"]) == 9
    assert dispatch(["claims", *outputs, "require=[1,2]"]) == 1
    assert capsys.readouterr().out.endswith("\nrequired: 1 not tested\n")
    with pytest.raises(UserError, match="require: there is no statement 10; choose from 1 to 9"):
        dispatch(["claims", *outputs, "require=[10]"])
    assert_passed_over(folder, outputs)


def test_compare(outputs, tmp_path, capsys):
    folder = tmp_path / "compared"
    assert dispatch(["compare", *outputs, f"output={folder}"]) == 0
    text = capsys.readouterr().out
    assert "BN-x5 network.dropout=0.4" in text
    assert "paper: BN-Inception ensemble" in text
    figures = [f"figure2{which}.{kind}" for which in ("", "-changes") for kind in ("png", "svg")]
    expected = {"comparison.json", "comparison.md", "report.html", *figures}
    assert {path.name for path in folder.iterdir()} == expected
    assert "The paper's statements" in (folder / "report.html").read_text()
    assert_passed_over(folder, outputs)


def test_the_check_of_statement_7_is_sharp(monkeypatch):
    tolerance = STATEMENTS[6].measures[0].limit
    output, gradient = scale_invariance()
    assert 0 <= output < tolerance and 0 <= gradient < tolerance
    # An epsilon as large as the variance breaks the identity, and the check sees it.
    monkeypatch.setattr("bn_inception.network.normalization.EPSILON", 1e12)
    assert min(scale_invariance()) > tolerance
