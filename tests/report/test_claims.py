import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report.conftest import evaluated, write_evaluation

from bn_inception.errors import UserError
from bn_inception.record import Divergence, Predictions, RunStatus, write_predictions
from bn_inception.report.claims import judge
from bn_inception.report.evaluations import read_saved
from bn_inception.report.measures import Decision
from bn_inception.report.runs import read_run
from bn_inception.report.statements import STATEMENTS
from bn_inception.report.verdicts import (
    claims_json,
    claims_markdown,
    claims_text,
    required_numbers,
    write_claims,
)

HOLDS, DOES_NOT = Decision.holds, Decision.does_not_hold
UNDECIDED, NOT_TESTED = Decision.undecided, Decision.not_tested


def rise(top, constant, evaluations=80):
    """An accuracy that rises from 1 % to `top` with a time constant, evaluated every 100 steps."""
    steps = 100 * np.arange(1, evaluations + 1)
    return (0.01 + (top - 0.01) * (1 - np.exp(-steps / constant))).tolist()


def verdict(number, runs, **others):
    first = judge(runs, **others)[number - 1].verdicts[0]
    assert first.reason
    assert not (first.commands and first.decision in (HOLDS, DOES_NOT))
    return first


@pytest.fixture
def seeded(make_run):
    """A function: runs of a recipe on one curve, of so many seeds."""

    def make(recipe, curve, seeds=3, name=None, **others):
        return [
            make_run(
                f"{name or recipe}-{seed}",
                recipe,
                [top1 * (1 + 0.002 * seed) for top1 in curve],
                seed=seed,
                **{"count": 100_000, **others},
            )
            for seed in range(seeds)
        ]

    return make


@pytest.fixture
def plain(seeded):
    # 25 %; the target of 24 % at about step 3,200.
    return seeded("inception", rise(0.25, 1000))


# --- 1 to 4: steps and plateaus


@pytest.mark.parametrize(
    ("number", "curves", "decision"),
    [
        # The plain network needs 3,100 steps to 24 %, these 1.57 time constants.
        (1, {"bn_baseline": (0.3, 500)}, HOLDS),
        (1, {"bn_baseline": (0.3, 1000)}, UNDECIDED),
        (1, {"bn_baseline": (0.3, 2500)}, DOES_NOT),
        (1, {"bn_baseline": (0.2, 80)}, DOES_NOT),  # none gets there
        (2, {"bn_x5": (0.3, 80)}, HOLDS),
        (2, {"bn_x5": (0.3, 180)}, UNDECIDED),
        (2, {"bn_x5": (0.3, 500)}, DOES_NOT),
        (3, {"bn_x5": (0.3, 100), "bn_x30": (0.35, 300)}, HOLDS),
        (3, {"bn_x5": (0.3, 100), "bn_x30": (0.35, 50)}, DOES_NOT),
        (3, {"bn_x5": (0.3, 100), "bn_x30": (0.27, 300)}, DOES_NOT),
        (3, {"bn_x5": (0.3, 100), "bn_x30": (0.35, 105)}, UNDECIDED),
        (4, {"bn_x30": (0.30, 100)}, HOLDS),
        (4, {"bn_x30": (0.27, 100)}, UNDECIDED),
        (4, {"bn_x30": (0.22, 100)}, DOES_NOT),
    ],
)
def test_steps_and_plateaus(seeded, plain, number, curves, decision):
    runs = [run for recipe, curve in curves.items() for run in seeded(recipe, rise(*curve))]
    judged = verdict(number, [*plain, *runs])
    assert judged.decision is decision and len(judged.evidence) == 3 + len(runs)
    limits = {1: "the limit is 50 %", 2: "the limit is 8.75 %", 4: "the limit is 1.3"}
    assert limits.get(number, "") in judged.reason and "24.0 %" in judged.evidence[0].says
    if decision is UNDECIDED:
        (command,) = judged.commands  # one sweep over what differs in its recipe alone
        recipes = ",".join(["inception", *curves])
        assert command == f"bn-inception train -m recipe={recipes} scale=cpu run.seed=3"


@pytest.mark.parametrize(("constant", "decision"), [(700, UNDECIDED), (150, HOLDS)])
def test_one_seed_decides_only_what_is_far_from_the_limit(seeded, constant, decision):
    runs = seeded("inception", rise(0.25, 1000), 1) + seeded("bn_baseline", rise(0.3, constant), 1)
    assert verdict(1, runs).decision is decision


def test_one_seed_that_never_gets_there_does_not_condemn_the_others(seeded, plain):
    never = seeded("bn_x5", rise(0.2, 80), name="never")[2]
    judged = verdict(2, [*plain, *seeded("bn_x5", rise(0.3, 80), 2), never])
    assert judged.decision is UNDECIDED
    assert "a run never gets there" in judged.reason
    assert any("24.0 % never, in 8,000 steps" in entry.says for entry in judged.evidence)


def test_a_single_high_evaluation_moves_nothing(seeded):
    lucky = rise(0.25, 1000)
    lucky[50] = 0.4
    runs = [*seeded("inception", lucky), *seeded("bn_baseline", rise(0.3, 500))]
    assert verdict(1, runs).decision is HOLDS


# --- what is not tested


@pytest.mark.parametrize(
    ("curve", "others", "reason"),
    [
        (rise(0.25, 1000), {"diverged": Divergence(8001, "3a")}, "diverged and sets no target"),
        (rise(0.025, 1000), {}, "is at chance (not above 2.0 %)"),
        (rise(0.5, 6000), {}, "still climbs"),
        (rise(0.25, 1000), {"status": RunStatus.interrupted}, "is not finished (interrupted)"),
    ],
)
def test_a_plain_network_that_sets_no_target(seeded, curve, others, reason):
    runs = [*seeded("inception", curve, 1, **others), *seeded("bn_x5", rise(0.4, 50), 1)]
    judged = verdict(2, runs)
    assert judged.decision is NOT_TESTED
    assert reason in judged.reason
    assert any("run.resume=must" in c for c in judged.commands) == ("status" in others)


@pytest.mark.parametrize(("number", "recipe"), [(5, "bn_x5"), (2, "bn_x5"), (2, "inception")])
def test_a_run_cut_short_is_no_evidence(seeded, plain, number, recipe):
    control = seeded("inception_x5", [0.01], 1, diverged=Divergence(30, "3a"))
    runs = [*plain, *control, *seeded("bn_x5", [0.01, 0.01, 0.01], 1, planned_steps=300)]
    known = [
        replace(
            run,
            overrides=("train.steps=300",),
            recipe_steps=15_500 if run.summary.recipe == recipe else None,
        )
        for run in runs
    ]
    judged = verdict(number, known)
    assert judged.decision is NOT_TESTED
    assert "is cut short" in judged.reason
    # The whole run, not a short one again.
    assert f"bn-inception train recipe={recipe} scale=cpu" in judged.commands


def test_runs_that_differ_otherwise_are_not_compared(seeded, plain):
    fast = seeded("bn_x5", rise(0.3, 80))
    for other in (
        {"overrides": ("train.evaluate_every=10",)},
        {"summary": replace(fast[0].summary, scale="small")},
        {"environment": {"machine": {"precision": "bf16"}}},
        {"data_fingerprint": "other"},
        {"unknown": ("config.yaml lacks scale.rate_factor",)},
    ):
        runs = [*plain, *(replace(run, **other) for run in fast)]
        assert verdict(2, runs).decision is NOT_TESTED
    unknown = [replace(run, unknown=("no config.yaml",)) for run in (*plain, *fast)]
    assert "what was run is not known: no config.yaml" in verdict(2, unknown).reason


def test_seeds_that_are_not_shared_are_not_paired(plain, make_run):
    judged = verdict(2, [*plain, make_run("seventh", "bn_x5", rise(0.3, 80), seed=7)])
    assert judged.decision is NOT_TESTED
    assert "no seed that bn_x5 and inception have in common" in judged.reason
    assert all("run.seed=8" in command for command in judged.commands)


def test_a_laptop_never_vetoes_imagenet(seeded):
    def study(scale, constant, planned):
        others = {"scale": scale, "planned_steps": planned}
        return [
            *seeded("inception", rise(0.25, 1000), name=f"p{scale}", **others),
            *seeded("bn_x5", rise(0.3, constant), name=f"f{scale}", **others),
        ]

    verdicts = judge([*study("cpu", 500, 15_500), *study("paper", 80, 31_000_000)])
    second = verdicts[1].verdicts
    assert [v.decision for v in second] == [HOLDS, DOES_NOT]
    assert [v.setting.split()[0] for v in second] == ["scale=paper", "scale=cpu"]
    assert required_numbers(verdicts, [2]) == []
    text = claims_text(verdicts)
    assert "Setting 1: scale=paper 100 classes" in text
    assert "Setting 2: scale=cpu 100 classes" in text


def test_commands_carry_the_setting(seeded):
    (run,) = seeded("inception", rise(0.25, 1000), 1, data="folder")
    options = ("data.root='my photos'", "run.name=plain", "run.seed=3")
    run = replace(run, overrides=("scale.width=0.5",), options=options)
    setting = "scale=cpu data=folder scale.width=0.5 data.root='my photos'"
    assert verdict(2, [run]).commands == (f"bn-inception train recipe=bn_x5 {setting}",)
    both = f"bn-inception train -m recipe=bn_x5,bn_x30 {setting}"
    assert verdict(3, [run]).commands == (both,)
    # `train -m` would take a comma for one between two values.
    assert len(verdict(3, [replace(run, options=("data.root=/a,b",))]).commands) == 2
    # The folder is the one that this run is given.
    train, single, *_ = verdict(9, [run]).commands
    assert train == f"bn-inception train recipe=bn_x30 {setting}"
    folder = run.path.parent / "bn_x30-cpu-folder-seed0-width0.5"
    assert single == f"bn-inception evaluate run={folder} crops=single"


# --- 5 to 8


@pytest.mark.parametrize(
    ("diverged", "bn", "decision"),
    [
        ((True, True), [0.2] * 3, HOLDS),
        ((False, False), [0.2] * 3, DOES_NOT),
        ((True, False), [0.2] * 3, UNDECIDED),
        ((True, True), [0.01] * 3, DOES_NOT),
    ],
)
def test_the_fivefold_rate(make_run, seeded, diverged, bn, decision):
    ends = [Divergence(30, "3a") if each else None for each in diverged]
    runs = [
        make_run(f"p{n}", "inception_x5", [0.01], seed=n, diverged=end)
        for n, end in enumerate(ends)
    ]
    assert verdict(5, [*runs, *seeded("bn_x5", bn, 2)]).decision is decision


def test_the_stability_edge_stands_beside_statement_5(seeded, tmp_path):
    path = tmp_path / "edge.json"
    # A rate below one that learns is slow, not beyond the edge.
    ends = {0.1: "stuck", 0.2: "learns", 0.4: "stuck", 0.8: "nonfinite", 1.6: "nonfinite"}
    rows = [
        {"network": network, "seed": seed, "rate": (1 + seed) * rate, "outcome": end}
        for network, outcomes in (("inception", ends), ("bn_baseline", {0.2: "stuck"}))
        for seed in (1, 0)
        for rate, end in outcomes.items()
    ]
    path.write_text(json.dumps({"kind": "stability_edge", "scale": "cpu", "rows": rows}))
    runs = seeded("bn_x5", [0.2] * 3, 1)
    says = [entry.says for entry in verdict(5, runs, edges=[read_saved(path)]).evidence]
    assert says[-1] == (
        "bn_baseline, seed 0, 1: non-finite at no rate; stuck at chance at every other rate tried. "
        "inception, seed 0, 1: non-finite from rate 0.8, from rate 1.6; "
        "stuck at chance from rate 0.4, from rate 0.8"
    )
    other = replace(read_saved(path), scale="small")
    assert len(verdict(5, runs, edges=[other]).evidence) == 1


@pytest.mark.parametrize(
    ("plain", "bn", "decision"),
    [
        ([0.01] * 3, [0.1, 0.3, 0.3], HOLDS),
        ([0.05] * 3, [0.1, 0.3, 0.3], DOES_NOT),
        ([0.01] * 3, [0.01] * 3, DOES_NOT),
        ([0.02] * 3, [0.1, 0.3, 0.3], UNDECIDED),
        # Its plateau counts, not what it once had.
        ([0.05, 0.01, 0.01, 0.01], [0.1, 0.3, 0.3], HOLDS),
    ],
)
def test_sigmoid(seeded, plain, bn, decision):
    runs = [*seeded("inception_sigmoid", plain, 2), *seeded("bn_x5_sigmoid", bn, 2)]
    judged = verdict(6, runs)
    assert judged.decision is decision
    assert "the limit is 2.0 %" in judged.reason


def test_a_seed_that_fails_leaves_it_open(seeded):
    dead = seeded("bn_x5_sigmoid", [0.01] * 3, name="dead")[2]
    runs = [*seeded("inception_sigmoid", [0.01] * 3), *seeded("bn_x5_sigmoid", [0.3] * 3, 2), dead]
    assert verdict(6, runs).decision is UNDECIDED


@pytest.mark.parametrize(
    ("differences", "decision"),
    [
        ((1e-14, 1e-13), HOLDS),
        ((1e-3, 1e-14), DOES_NOT),
        ((1e-14, 1e-3), DOES_NOT),
        ((float("nan"), 0.0), DOES_NOT),
        (None, NOT_TESTED),
    ],
)
def test_invariance(plain, differences, decision):
    assert verdict(7, plain[:1], differences=differences).decision is decision


@pytest.mark.parametrize(
    ("accuracies", "decision"),
    [
        ((0.33, 0.30, 0.35, 0.28), HOLDS),  # the gap is 4 points narrower
        ((0.45, 0.25, 0.35, 0.30), DOES_NOT),  # 15 points wider, and 5 points worse
        ((0.45, 0.32, 0.35, 0.30), UNDECIDED),  # wider, and better
    ],
)
def test_dropout(seeded, plain, accuracies, decision):
    train, held_out, other_train, other_held_out = accuracies
    without = seeded("bn_x5", [held_out] * 5, training=[train] * 5, every=10_000)
    dropped = seeded(
        "bn_x5", [other_held_out] * 5, name="d", training=[other_train] * 5, every=10_000
    )
    changed = [replace(run, overrides=("network.dropout=0.4",)) for run in dropped]
    judged = verdict(8, [*without, *changed])
    assert judged.decision is decision
    assert f"{100 * (train - held_out - other_train + other_held_out):+.0f}" in judged.reason
    # Statement 2 never takes the runs with dropout for BN-x5's own.
    assert "no run of bn_x5" in verdict(2, [*plain, *changed]).reason
    wanted = "bn-inception train recipe=bn_x5 scale=cpu network.dropout=0.4"
    assert verdict(8, without).commands == (wanted,)


# --- 9


@pytest.fixture
def ensembled(make_run, tmp_path):
    """A function: errors of a single crop, 144 crops and six networks, in; judged, out."""

    def judged(single, multi, ensemble, scale="cpu", data="tiny_imagenet", **others):
        count = others.pop("images", 10_000)
        run = make_run("x30", "bn_x30", [0.1, 0.3], scale=scale, data=data, count=count)
        run = evaluated(run, ("single", single), ("144", multi), count=count)
        others = {"models": 6, "count": count, "data": others.pop("seen", None), **others}
        path = write_evaluation(tmp_path / "ensemble.json", "144", ensemble, **others)
        return verdict(9, [run], ensembles=[read_saved(path)])

    return judged


@pytest.mark.parametrize(
    ("errors", "decision"),
    [
        ((0.35, 0.30, 0.20), HOLDS),
        ((0.25, 0.30, 0.20), DOES_NOT),
        ((0.30, 0.25, 0.30), DOES_NOT),
        ((0.30, 0.299, 0.20), UNDECIDED),
        # Clear by 10,000 images, and within what another seed could change.
        ((0.30, 0.25, 0.235), UNDECIDED),
    ],
)
def test_crops_and_ensembles(ensembled, errors, decision):
    judged = ensembled(*errors)
    assert judged.decision is decision
    assert "4.9 % is tested at scale=paper" in judged.reason


@pytest.mark.parametrize(
    ("error", "decision"), [(0.049, HOLDS), (0.052, UNDECIDED), (0.068, DOES_NOT)]
)
def test_the_value_itself_at_the_papers_scale(ensembled, error, decision):
    others = {"images": 50_000, "top5_interval": [error - 0.002, error + 0.002]}
    judged = ensembled(0.14, 0.12, error, scale="paper", data="imagenet", **others)
    assert judged.decision is decision
    assert "4.9 %" in judged.reason


@pytest.mark.parametrize("same_images", [True, False])
def test_predictions_beside_the_evaluations_are_paired(make_run, tmp_path, same_images):
    # Of 100 images 30 are wrong with a single crop, and 20 of these with 144.
    run = make_run("x30", "bn_x30", [0.1, 0.3], count=100)
    run = evaluated(run, ("single", 0.3), ("144", 0.2), count=100)
    for crops in ("single", "144"):
        probabilities = np.tile(np.arange(8) / 28, (100, 1)).astype(np.float16)
        ids = [f"{number}{'' if same_images else crops}" for number in range(100)]
        labels = np.where(np.arange(100) < 30, 0, 7)
        if crops == "144":
            probabilities[20:30] = probabilities[20:30, ::-1]
        saved = Predictions(np.array(ids), labels, probabilities)
        write_predictions(run.path / "evaluation" / f"{crops}.npz", saved)
    six = write_evaluation(tmp_path / "six.json", "144", 0.1, models=6, count=100)
    reason = verdict(9, [run], ensembles=[read_saved(six)]).reason
    assert "single crop - 144: +10.00 points" in reason
    # 30 against 20 of 100 independent images is noise; 10 of 10 that differ is not.
    assert ("(+3." in reason) == same_images


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"models": 5}, "no evaluation of an ensemble of six networks"),
        ({"count": 9_999}, "on the images, at the image size and with the BN statistics of bn_x30"),
        ({"image_size": 64}, "at the image size"),
        ({"seen": {"fingerprint": "other"}}, "on the images"),
        ({"statistics": "running"}, "with the BN statistics"),
    ],
)
def test_another_ensemble_is_no_evidence(ensembled, others, reason):
    judged = ensembled(0.35, 0.3, 0.2, **others)
    assert judged.decision is NOT_TESTED
    assert reason in judged.reason
    if "models" in others:
        third = "bn-inception train recipe=ensemble/3 scale=cpu data=tiny_imagenet run.seed=3"
        assert judged.commands.count(third) == 1
        assert judged.commands[-1].startswith("bn-inception ensemble ")


def test_what_is_missing_for_the_crops_is_named(make_run):
    run = evaluated(make_run("x30", "bn_x30", [0.1, 0.3], count=10_000), ("single", 0.3))
    # Other images than the run's own.
    run = evaluated(run, ("144", 0.2), count=50)
    judged = verdict(9, [run])
    assert f"bn-inception evaluate run={run.path} crops=144" in judged.commands
    assert f"bn-inception evaluate run={run.path} crops=single" not in judged.commands
    assert "x30 has no evaluation with 144 crops" in judged.reason


# --- what is written


@pytest.fixture
def verdicts(seeded, plain):
    control = seeded("inception_x5", [0.01], diverged=Divergence(1234, "4e.pool"))
    return judge([*plain, *seeded("bn_x5", rise(0.3, 80)), *control], differences=(0, 0))


def test_text_markdown_and_json_say_all(verdicts, tmp_path):
    text, markdown = claims_text(verdicts), claims_markdown(verdicts)
    for statement in STATEMENTS:
        assert statement.claim.split()[-1] in text and statement.title in markdown
        assert statement.limit in markdown and statement.measured in markdown
    for words in ("not tested", "holds", "diverged at step 1,234"):
        assert words in text and words in markdown
    assert "3 hold, 0 not, 0 undecided, 6 not tested" in text
    for judged in verdicts:
        for command in judged.leading.commands:
            assert f"   $ {command}" in text.splitlines()
    long = [line for line in text.splitlines() if len(line) > 80]
    assert all("$ " in line or str(tmp_path) in line for line in long)
    values = json.loads(claims_json(verdicts))["verdicts"]
    assert [value["number"] for value in values] == list(range(1, 10))
    assert values[4]["decision"] == "holds" and values[4]["setting"] == "scale=cpu 100 classes"
    assert values[0]["commands"] and values[0]["limit"] and values[1]["evidence"][0]["says"]
    paths = write_claims(verdicts, tmp_path / "new")
    assert [path.name for path in paths] == ["claims.md", "claims.json"]
    assert all(str(tmp_path) not in path.read_text() for path in paths)


def test_the_evidence_is_linked_from_where_the_file_lies(seeded, tmp_path, monkeypatch):
    seeded("inception_x5", [0.01], 1, diverged=Divergence(1234, "4e.pool"))
    monkeypatch.chdir(tmp_path)
    verdicts = judge([read_run("outputs/inception_x5-0")])
    markdown, _ = write_claims(verdicts, Path("results/mine"))
    assert "[inception_x5-0](../../outputs/inception_x5-0)" in markdown.read_text()


def test_required(verdicts):
    assert required_numbers(verdicts, [2, 5, 7]) == []
    assert [v.statement.number for v in required_numbers(verdicts, [6, 1, 5])] == [1, 6]
    with pytest.raises(UserError, match="require: there is no statement 10; choose from 1 to 9"):
        required_numbers(verdicts, [10])
