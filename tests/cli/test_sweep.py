"""Several runs by Hydra's launchers: each a process and a run folder of its own."""

import pytest
from small_runs import TINY

from bn_inception import UserError
from bn_inception.cli.main import dispatch

LAUNCHERS = {
    "basic": None,
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_runs_of_a_sweep_end_each_by_itself_and_are_not_made_twice(
    launcher, tmp_path, images, capfd
):
    if LAUNCHERS[launcher] is not None:
        pytest.importorskip(LAUNCHERS[launcher])
    given = [*TINY, "train.steps=2", f"data.root={images}", f"run.root={tmp_path / 'runs'}"]
    command = ["train", "-m", *given, f"hydra/launcher={launcher}"]
    assert dispatch([*command, "data.first_classes=1,2"]) == 1
    said = capfd.readouterr().err
    assert "status 2: bn-inception train" in said and "data.first_classes=1" in said
    (run,) = (tmp_path / "runs").glob("[!.]*")  # as a shell's outputs/*
    assert run.name.startswith("bn_x5-demo-folder-seed0") and "first_classes2" in run.name
    record = run / "metrics.jsonl"
    made = record.stat().st_mtime_ns
    assert dispatch([*command, "data.first_classes=2"]) == 0
    assert record.stat().st_mtime_ns == made and list((tmp_path / "runs").glob("[!.]*")) == [run]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("lr=0.1,0.2", r"write optimizer\.learning_rate"),
        ("recipe=BN-x30", "write recipe=bn_x30"),
        ("train.steps=2,4", "train.steps is in no run's name"),
        ("machine.threads=range(2)", "machine.threads is in no run's name"),
        ("train.steps=[1,", "train.steps"),
    ],
)
def test_a_sweep_that_cannot_be_read_is_one_line_and_starts_nothing(changed, said, tmp_path):
    with pytest.raises(UserError, match=said) as caught:
        dispatch(["train", "-m", changed, f"run.root={tmp_path}"])
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("[!.]*"))
