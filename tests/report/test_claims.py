import json
from dataclasses import replace

import numpy as np
import pytest
from report.conftest import evaluation_json

from bn_inception.errors import UserError
from bn_inception.paper.statements import STATEMENTS
from bn_inception.record import Divergence, Predictions, RunStatus, write_predictions
from bn_inception.report import (
    Outcome,
    claims_json,
    claims_markdown,
    claims_text,
    judge,
    read_evaluation,
    read_runs,
    required_numbers,
    write_claims,
)
from bn_inception.report.judges import above_chance

HOLDS, DOES_NOT, NOT_TESTED = Outcome.holds, Outcome.does_not_hold, Outcome.not_tested
MANY = {"count": 10_000}


def rise(maximum, evaluations):
    """An accuracy curve that rises evenly to `maximum` at its last evaluation."""
    return [maximum * number / evaluations for number in range(1, evaluations + 1)]


def verdict(number, runs, **others):
    found = judge(runs if hasattr(runs[0], "summary") else read_runs(runs), **others)
    assert [entry.statement.number for entry in found] == list(range(1, 10))
    judged = found[number - 1]
    # Whatever is not tested says how to test it, and only that does.
    assert bool(judged.commands) == (judged.outcome is NOT_TESTED)
    assert judged.reason
    return judged


@pytest.fixture
def plain(make_run):
    # 25 % at step 10,000, evaluated every 100 steps.
    return make_run("plain", "inception", rise(0.25, 100), **MANY)


# --- 1 and 2: steps


@pytest.mark.parametrize(
    ("reached_at", "every", "outcome"),
    [
        (4000, 100, HOLDS),  # bounds 39 % to 40.4 %
        (4900, 100, HOLDS),  # 48 % to 49.5 %
        (5000, 100, NOT_TESTED),  # 49 % to 50.5 %
        (5100, 100, DOES_NOT),  # above 50 %
        (6000, 3000, NOT_TESTED),  # 30 % to 60.6 %
        (9000, 100, DOES_NOT),
    ],
)
def test_half_the_steps(make_run, plain, reached_at, every, outcome):
    curve = [0.1] * (reached_at // every - 1) + [0.26]
    fast = make_run("fast", "bn_baseline", curve, every=every, **MANY)
    judged = verdict(1, [plain, fast])
    assert judged.outcome is outcome
    low = 100 * (reached_at - every) / 10_000
    assert f"bounds {low:.1f} %" in judged.reason
    assert {entry.name for entry in judged.evidence} == {"plain", "fast"}
    if outcome is NOT_TESTED:
        assert len(judged.commands) == 2
        assert f"train.evaluate_every={every // 10} " in judged.commands[1]
        assert f"run.name=fast-every{every // 10}" in judged.commands[1]


@pytest.mark.parametrize(
    ("reached_at", "outcome"),
    [(700, HOLDS), (860, HOLDS), (870, NOT_TESTED), (890, DOES_NOT)],
)
def test_seven_percent(make_run, plain, reached_at, outcome):
    curve = [0.1] * (reached_at // 10 - 1) + [0.25]
    fast = make_run("fast", "bn_x5", curve, every=10, **MANY)
    judged = verdict(2, [plain, fast])
    assert judged.outcome is outcome
    assert f"{reached_at / 100:.1f} % of the steps" in judged.reason


def test_never_reached_counts_only_if_the_run_was_long_enough(make_run, plain):
    long = make_run("long", "bn_baseline", [0.2] * 50, **MANY)
    assert verdict(1, [plain, long]).outcome is DOES_NOT
    short = make_run("short", "bn_baseline", [0.2] * 49, **MANY)
    judged = verdict(1, [plain, short])
    assert judged.outcome is NOT_TESTED
    assert "ran for 4,900 steps only" in judged.reason
    (command,) = judged.commands
    assert command.endswith("train.steps=5000")


def test_a_diverged_network_does_not_reach_it(make_run, plain):
    curve = [0.2] * 10
    fast = make_run("fast", "bn_baseline", curve, diverged=Divergence(1001, "3a"), **MANY)
    assert verdict(1, [plain, fast]).outcome is DOES_NOT


@pytest.mark.parametrize("status", [RunStatus.running, RunStatus.interrupted])
@pytest.mark.parametrize("which", ["inception", "bn_x5"])
def test_an_unfinished_run_is_no_evidence(make_run, status, which):
    runs = [
        make_run(
            recipe,
            recipe,
            rise(0.25, 100) if recipe == "inception" else [0.3] * 10,
            status=status if recipe == which else RunStatus.finished,
            **MANY,
        )
        for recipe in ("inception", "bn_x5")
    ]
    judged = verdict(2, runs)
    assert judged.outcome is NOT_TESTED
    assert f"{which} is not finished ({status.value})" in judged.reason
    (command,) = judged.commands
    assert command == f"bn-inception train recipe={which} scale=cpu run.resume=true"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"diverged": Divergence(10_001, "3a")}, "diverged and sets no target"),
        ({"curve": [0.01] * 10}, "not above chance"),
    ],
)
def test_a_plain_network_that_failed_sets_no_target(make_run, changes, reason):
    changes = dict(changes)
    curve = changes.pop("curve", rise(0.25, 100))
    plain = make_run("plain", "inception", curve, **MANY, **changes)
    fast = make_run("fast", "bn_x5", [0.3, 0.3], every=10, **MANY)
    fastest = make_run("fastest", "bn_x30", [0.2, 0.4], every=10, **MANY)
    for number in (2, 3, 4):
        judged = verdict(number, [plain, fast, fastest])
        assert judged.outcome is NOT_TESTED
        assert reason in judged.reason


def test_seeds_are_averaged(make_run):
    plain = [
        make_run(f"plain{s}", "inception", rise(0.2 + s / 10, 100), seed=s, **MANY) for s in (0, 1)
    ]
    # The target is 25 %: one seed needs 400 steps and the other 800.
    fast = [
        make_run(f"fast{s}", "bn_x5", [0.1] * (39 + 40 * s) + [0.26], every=10, seed=s, **MANY)
        for s in (0, 1)
    ]
    judged = verdict(2, [*plain, *fast])
    assert judged.outcome is HOLDS
    assert "6.0 % of the steps" in judged.reason
    never = make_run("fast2", "bn_x5", [0.1] * 200, every=10, seed=2, **MANY)
    with_one_that_never_does = verdict(2, [*plain, *fast, never])
    assert with_one_that_never_does.outcome is DOES_NOT
    assert "1 of 3 runs of bn_x5 never reached" in with_one_that_never_does.reason


# --- 3 and 4: BN-x30


@pytest.mark.parametrize(
    ("x5", "x30", "outcome"),
    [
        ([0.26, 0.3], [0.1, 0.26, 0.4], HOLDS),
        ([0.1, 0.26, 0.3], [0.26, 0.4], DOES_NOT),  # starts faster
        ([0.26, 0.4], [0.1, 0.26, 0.3], DOES_NOT),  # ends lower
        ([0.26, 0.3], [0.26, 0.4], NOT_TESTED),  # both by the first evaluation
        ([0.26, 0.300], [0.1, 0.26, 0.302], NOT_TESTED),  # smaller than the noise
        ([0.1, 0.2, 0.2], [0.1, 0.26, 0.4], DOES_NOT),  # BN-x5 never reached it
        ([0.1], [0.1, 0.26, 0.4], NOT_TESTED),  # BN-x5 ran too short
        ([0.26, 0.3], [0.1, 0.2], DOES_NOT),  # BN-x30 never reached it, and ends lower
        ([0.1, 0.251], [0.1, 0.249], NOT_TESTED),  # slower, but smaller than the noise
        ([0.1, 0.251], [0.249], NOT_TESTED),  # BN-x30 ran too short
        ([0.1, 0.2], [0.2, 0.249], NOT_TESTED),  # neither reached it
        ([0.1, 0.1], [0.2, 0.249], NOT_TESTED),
    ],
)
def test_slower_then_higher(make_run, plain, x5, x30, outcome):
    runs = [plain, make_run("x5", "bn_x5", x5, **MANY), make_run("x30", "bn_x30", x30, **MANY)]
    judged = verdict(3, runs)
    assert judged.outcome is outcome
    # Once each, although both halves of the statement look at them.
    assert sorted(entry.name for entry in judged.evidence if entry.name != "plain") == ["x30", "x5"]


@pytest.mark.parametrize(
    ("top1", "count", "outcome"),
    [
        (0.30, 10_000, HOLDS),
        (0.264, 100_000, HOLDS),
        (0.30, 100, NOT_TESTED),  # the noise of 100 images
        (0.255, 100_000, DOES_NOT),  # clearly better, and clearly by less than 1.3 points
        (0.20, 10_000, DOES_NOT),
    ],
)
def test_the_margin(make_run, top1, count, outcome):
    runs = [
        make_run("plain", "inception", [0.1, 0.25], count=count),
        make_run("x30", "bn_x30", [0.1, top1], count=count),
    ]
    judged = verdict(4, runs)
    assert judged.outcome is outcome
    assert f"{100 * (top1 - 0.25):+.2f} points" in judged.reason
    if outcome is NOT_TESTED:
        assert "smaller than the noise" in judged.reason
        assert [command.split()[-1] for command in judged.commands] == ["run.seed=1"] * 2


# --- 5 and 6


@pytest.mark.parametrize(
    ("plain", "bn", "outcome"),
    [
        ({"diverged": Divergence(30, "3a")}, {}, HOLDS),
        ({}, {}, DOES_NOT),
        ({"diverged": Divergence(30, "3a")}, {"diverged": Divergence(30, "3a")}, DOES_NOT),
        ({"diverged": Divergence(30, "3a")}, {"curve": [0.01, 0.012]}, DOES_NOT),
        ({"started_learning": False}, {}, DOES_NOT),
        ({"status": RunStatus.running}, {}, NOT_TESTED),
        # Whatever becomes of the plain network, this decides.
        ({"status": RunStatus.running}, {"diverged": Divergence(30, "3a")}, DOES_NOT),
        ({"diverged": Divergence(30, "3a")}, {"status": RunStatus.interrupted}, NOT_TESTED),
    ],
)
def test_the_fivefold_rate(make_run, plain, bn, outcome):
    plain, bn = {"curve": [0.01, 0.01], **plain}, {"curve": [0.1, 0.2], **bn}
    runs = [
        make_run("plain", "inception_x5", plain.pop("curve"), **MANY, **plain),
        make_run("bn", "bn_x5", bn.pop("curve"), **MANY, **bn),
    ]
    assert verdict(5, runs).outcome is outcome


@pytest.mark.parametrize(
    ("plain", "bn", "outcome"),
    [
        ([0.01, 0.01], [0.1, 0.3], HOLDS),
        ([0.01, 0.05], [0.1, 0.3], DOES_NOT),
        ([0.01, 0.01], [0.01, 0.011], DOES_NOT),
        # Above chance at one time is above chance, whatever came after.
        ([0.01, 0.01], [0.1, 0.01], HOLDS),
        ([0.05, 0.01], [0.1, 0.3], DOES_NOT),
    ],
)
def test_sigmoid(make_run, plain, bn, outcome):
    runs = [
        make_run("plain", "inception_sigmoid", plain, **MANY),
        make_run("bn", "bn_x5_sigmoid", bn, **MANY),
    ]
    judged = verdict(6, runs)
    assert judged.outcome is outcome
    assert "(1.0 %)" in judged.reason


def test_chance_is_judged_by_all_evaluations_together(make_run):
    # 1.3 % of 10,000 images is above 1 % for one evaluation, and not for the best of a thousand.
    few, many = read_runs(
        [
            make_run("few", "inception_sigmoid", [0.013], **MANY),
            make_run("many", "inception_sigmoid", [0.01] * 999 + [0.013], **MANY),
        ]
    )
    assert (above_chance(few), above_chance(many)) == (True, False)
    empty, unknown = read_runs(
        [
            make_run("empty", "inception_sigmoid", []),
            make_run("unknown", "inception_sigmoid", [0.9], classes=None),
        ]
    )
    assert above_chance(empty) is None
    assert above_chance(unknown) is None


# --- 7


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [
        ((1e-14, 1e-13), HOLDS),
        ((1e-3, 1e-14), DOES_NOT),
        ((1e-14, 1e-3), DOES_NOT),
        ((float("nan"), 0.0), DOES_NOT),
        (None, NOT_TESTED),
    ],
)
def test_invariance(plain, differences, outcome):
    assert verdict(7, [plain], invariance=differences).outcome is outcome


# --- 8


def dropped(make_run, training, validation, dropout_training, dropout_validation, count, seeds=1):
    """bn_x5 with and without dropout: the last training and validation accuracies."""
    runs = []
    for name, train, held_out in (
        ("without", training, validation),
        ("with", dropout_training, dropout_validation),
    ):
        for seed in range(seeds):
            shift = seed / 1000
            folder = make_run(
                f"{name}{seed}-{training}-{validation}",
                "bn_x5",
                [0.1, held_out + shift],
                training=[0.1, train],
                count=count,
                every=10_000,
                seed=seed,
            )
            (run,) = read_runs([folder])
            overrides = ("network.dropout=0.4",) if name == "with" else ()
            runs.append(replace(run, overrides=overrides))
    return runs


@pytest.mark.parametrize(
    ("accuracies", "outcome"),
    [
        ((0.35, 0.30, 0.35, 0.28), HOLDS),  # the gap is 2 points narrower
        ((0.45, 0.25, 0.35, 0.30), DOES_NOT),  # 15 points wider, and 5 points worse
        ((0.45, 0.32, 0.35, 0.30), NOT_TESTED),  # wider, and better
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_dropout(make_run, accuracies, outcome, seeds):
    judged = verdict(8, dropped(make_run, *accuracies, 100_000, seeds))
    assert judged.outcome is outcome
    gap = accuracies[0] - accuracies[1] - accuracies[2] + accuracies[3]
    assert f"{100 * gap:+.2f} points" in judged.reason
    assert ("Welch" in judged.reason) == (seeds > 1)
    assert len(judged.evidence) == 2 * seeds
    if outcome is NOT_TESTED:
        unused = f"run.seed={seeds}"
        assert all(unused in command.split() for command in judged.commands)
        assert "network.dropout=0.4" in judged.commands[1].split()


def test_a_gap_smaller_than_the_noise_decides_nothing(make_run):
    assert verdict(8, dropped(make_run, 0.35, 0.30, 0.35, 0.299, 100)).outcome is NOT_TESTED


def test_a_run_with_dropout_is_not_one_of_bn_x5(make_run, plain):
    with_dropout = dropped(make_run, 0.35, 0.30, 0.35, 0.28, 10_000)[1]
    runs = [*read_runs([plain]), with_dropout]
    judged = verdict(2, runs)
    assert judged.outcome is NOT_TESTED
    assert "no run of bn_x5" in judged.reason
    assert verdict(8, runs).commands == ("bn-inception train scale=cpu recipe=bn_x5",)


# --- 9


@pytest.fixture
def ensembled(make_run, add_evaluation, tmp_path):
    """A function: errors of a single crop, 144 crops and six networks, in; judged, out."""

    def judged(single, multi, ensemble, scale="cpu", data="tiny_imagenet", **others):
        count = others.pop("images", 10_000)
        run = make_run("x30", "bn_x30", [0.1, 0.3], scale=scale, data=data, count=count)
        add_evaluation(run, "single", single, count=count)
        add_evaluation(run, "144", multi, count=count)
        path = tmp_path / "ensemble.json"
        others = {"models": 6, "count": count, "data": others.pop("seen", None), **others}
        path.write_text(evaluation_json("144", ensemble, **others))
        return verdict(9, [run], ensembles=[read_evaluation(path)])

    return judged


@pytest.mark.parametrize(
    ("errors", "outcome"),
    [
        ((0.30, 0.25, 0.20), HOLDS),
        ((0.25, 0.30, 0.20), DOES_NOT),
        ((0.30, 0.25, 0.28), DOES_NOT),
        ((0.30, 0.299, 0.20), NOT_TESTED),
        ((0.30, 0.25, 0.249), NOT_TESTED),
    ],
)
def test_crops_and_ensembles(ensembled, errors, outcome):
    judged = ensembled(*errors)
    assert judged.outcome is outcome
    assert "4.9 % itself is not tested at this scale" in judged.reason


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(0.049, HOLDS), (0.052, HOLDS), (0.053, DOES_NOT), (0.068, DOES_NOT)],
)
def test_the_value_itself_at_the_papers_scale(ensembled, error, outcome):
    judged = ensembled(0.12, 0.1, error, scale="paper", data="imagenet", images=50_000)
    assert judged.outcome is outcome
    assert "4.9 %" in judged.reason


def test_the_value_needs_all_of_the_papers_images(ensembled):
    judged = ensembled(0.12, 0.1, 0.049, scale="paper", data="imagenet")
    assert judged.outcome is NOT_TESTED
    assert "but on 10,000 images" in judged.reason


@pytest.mark.parametrize("same_images", [True, False])
def test_predictions_beside_the_evaluations_are_paired(make_run, add_evaluation, same_images):
    run = make_run("x30", "bn_x30", [0.1, 0.3], count=100)
    # Of 100 images 30 are wrong with a single crop, and 20 of these with 144.
    for crops, wrong in (("single", 30), ("144", 20)):
        path = add_evaluation(run, crops, wrong / 100, count=100)
        probabilities = np.tile(np.arange(8) / 28, (100, 1)).astype(np.float16)
        ids = [f"{number}{'' if same_images else crops}" for number in range(100)]
        labels = np.where(np.arange(100) < wrong, 0, 7)
        if not same_images:
            labels = np.where(np.arange(100) < wrong, 1, 7)
        elif crops == "144":
            # The label is the same, and the prediction is another.
            labels = np.where(np.arange(100) < 30, 0, 7)
            probabilities[20:30] = probabilities[20:30, ::-1]
        write_predictions(
            path.with_suffix(".npz"), Predictions(np.array(ids), labels, probabilities)
        )
    judged = verdict(9, [run])
    assert "+10.00 points" in judged.reason
    assert ("paired, 100 images" in judged.reason) == same_images
    # 30 against 20 of 100 independent images is noise; 10 of 10 that differ is not.
    assert ("smaller than the noise" in judged.reason) != same_images


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"models": 5}, "no evaluation of an ensemble of six networks"),
        ({"count": 9_999}, "on the images, at the image size and with the BN statistics of x30"),
        ({"image_size": 64}, "at the image size"),
        ({"seen": {"fingerprint": "other"}}, "on the images"),
        ({"statistics": "running"}, "with the BN statistics"),
    ],
)
def test_another_ensemble_is_no_evidence(ensembled, others, reason):
    judged = ensembled(0.3, 0.25, 0.2, **others)
    assert judged.outcome is NOT_TESTED
    assert reason in judged.reason
    assert sum("recipe=ensemble/" in command for command in judged.commands) == 6
    assert "recipe=ensemble/3 scale=cpu data=tiny_imagenet run.seed=3" in judged.commands[2]
    assert judged.commands[-1].startswith("bn-inception ensemble ")


def test_what_is_missing_for_the_crops_is_named(make_run, add_evaluation):
    run = make_run("x30", "bn_x30", [0.1, 0.3], **MANY)
    add_evaluation(run, "single", 0.3)
    # Other images than the run's own.
    add_evaluation(run, "144", 0.2, count=50)
    judged = verdict(9, [run])
    assert f"bn-inception evaluate run={run} crops=144" in judged.commands
    assert f"bn-inception evaluate run={run} crops=single" not in judged.commands
    assert "no evaluation with 144 crops" in judged.reason


# --- settings


def test_runs_of_different_settings_are_not_compared(make_run, plain):
    fast = make_run("fast", "bn_x5", [0.3], scale="small", every=10, **MANY)
    other = make_run("other", "bn_x5", [0.3], fingerprint="other", every=10, **MANY)
    assert verdict(2, [plain, fast, other]).outcome is NOT_TESTED


def test_a_setting_in_which_it_fails_outweighs_one_in_which_it_holds(make_run, plain):
    holding = [plain, make_run("fast", "bn_x5", [0.3], every=10, **MANY)]
    assert verdict(2, holding).outcome is HOLDS
    failing = [
        make_run("plain2", "inception", rise(0.25, 100), scale="small", **MANY),
        make_run("slow", "bn_x5", [0.1] * 49 + [0.3], scale="small", **MANY),
    ]
    judged = verdict(2, [*holding, *failing])
    assert judged.outcome is DOES_NOT
    assert "[scale=cpu" in judged.reason and "[scale=small" in judged.reason


def test_commands_carry_the_setting(make_run):
    (run,) = read_runs([make_run("plain", "inception", rise(0.25, 100), data="folder", **MANY)])
    run = replace(
        run,
        overrides=("scale.width=0.5",),
        options=("data.root=pictures", "run.name=plain", "run.seed=3"),
    )
    (command,) = verdict(2, [run]).commands
    assert command == (
        "bn-inception train recipe=bn_x5 scale=cpu data=folder scale.width=0.5 data.root=pictures"
    )


# --- what is written


@pytest.fixture
def verdicts(make_run, plain, figure3_runs):
    fast = make_run("fast-one", "bn_x5", [0.3], every=10, **MANY)
    return judge(read_runs([plain.parent / "plain", fast, *figure3_runs[:2]]), invariance=(0, 0))


@pytest.fixture
def figure3_runs(make_run):
    return [
        make_run("sigmoid", "bn_x5_sigmoid", [0.05, 0.1, 0.15]),
        make_run("control", "inception_x5", [0.01], diverged=Divergence(1234, "4e.pool")),
    ]


def test_text_and_markdown_say_all(verdicts):
    text, markdown = claims_text(verdicts), claims_markdown(verdicts)
    for statement in STATEMENTS:
        assert statement.title in text and statement.title in markdown
        assert statement.criterion in markdown and statement.measured in markdown
    for words in ("does not hold", "not tested", "holds", "diverged at step 1,234"):
        assert words in text or words in {"does not hold"}
    assert "3 hold, 0 not, 6 not tested" in text
    for judged in verdicts:
        for command in judged.commands:
            assert command in text.splitlines() or f"   $ {command}" in text.splitlines()
    assert all(len(line) <= 120 or "$ " in line for line in text.splitlines())


def test_files_hold_no_absolute_path(verdicts, tmp_path):
    paths = write_claims(verdicts, tmp_path / "new")
    assert [path.name for path in paths] == ["claims.md", "claims.json"]
    for path in paths:
        assert str(tmp_path) not in path.read_text()


def test_the_evidence_is_linked_from_where_the_file_lies(make_run, tmp_path, monkeypatch):
    make_run("control", "inception_x5", [0.01], diverged=Divergence(1234, "4e.pool"))
    monkeypatch.chdir(tmp_path)
    markdown, _ = write_claims(judge(read_runs(["outputs/control"])), "results/mine")
    assert "[control](../../outputs/control)" in markdown.read_text()


def test_json_is_for_programs(verdicts):
    values = json.loads(claims_json(verdicts))["verdicts"]
    assert [value["number"] for value in values] == list(range(1, 10))
    assert values[4]["outcome"] == "holds"
    assert values[0]["commands"]
    assert values[0]["criterion"] and values[1]["evidence"][0]["says"]


def test_required(verdicts):
    assert required_numbers(verdicts, []) == []
    assert required_numbers(verdicts, [5, 7]) == []
    assert [v.statement.number for v in required_numbers(verdicts, [1, 5, 6])] == [1, 6]
    with pytest.raises(UserError, match="require: there is no statement 10; choose from 1 to 9"):
        required_numbers(verdicts, [10])
