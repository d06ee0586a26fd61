"""The commands that would make what is missing, as few as there can be."""

from bn_inception.report.commands import swept

TRAIN = "bn-inception train"
LAST = "scale=cpu data=folder 'data.root=my photos'"


def test_runs_that_differ_in_recipe_and_seed_are_one_sweep() -> None:
    evaluate = "bn-inception evaluate run=outputs/a crops=144"
    assert swept(
        [
            f"{TRAIN} recipe=inception {LAST}",
            evaluate,
            f"{TRAIN} recipe=bn_x5 {LAST}",
            f"{TRAIN} recipe=bn_x5 {LAST}",
        ]
    ) == [
        f"{TRAIN} -m recipe=inception,bn_x5 scale=cpu data=folder data.root='my photos'",
        evaluate,
    ]
    seeds = [f"{TRAIN} recipe={name} run.seed=1" for name in ("inception", "bn_x5")]
    assert swept(seeds) == [f"{TRAIN} -m recipe=inception,bn_x5 run.seed=1"]


def test_what_is_no_product_or_goes_on_with_a_run_stays_as_it_is() -> None:
    members = [f"{TRAIN} recipe=ensemble/{number} run.seed={number}" for number in (1, 2)]
    stopped = f"{TRAIN} recipe=bn_x30 run.resume=must"
    comma = [f"{TRAIN} recipe={name} data.root=/a,b" for name in ("bn_x5", "bn_x30")]
    alone = f"{TRAIN} recipe=bn_x5 scale=cpu"
    for commands in (members, [stopped, alone], comma):
        assert swept(commands) == commands
