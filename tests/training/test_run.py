"""Whole runs through the command, seconds each: what they leave, and what survives a crash."""

import json
import math
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import TINY, write_images

from bn_inception import UserError
from bn_inception.cli.main import dispatch
from bn_inception.data import (
    Backend,
    DataConfig,
    DataKind,
    OnError,
    open_sources,
    validation_batches,
)
from bn_inception.evaluation import evaluate
from bn_inception.network import checkpoint
from bn_inception.training import loop
from bn_inception.training.population import PopulationBatches
from bn_inception.training.session import Session


class Runs:
    """Starts runs on the small set and reads what they leave."""

    def __init__(self, root: Path, images: Path) -> None:
        self.root, self.images = root, images

    def arguments(self, name: str, *overrides: str, recipe: str = "bn_x5") -> list[str]:
        given = [f"run.root={self.root}", f"run.name={name}", f"data.root={self.images}"]
        return ["train", f"recipe={recipe}", *TINY, *given, *overrides]

    def train(self, name: str, *overrides: str, recipe: str = "bn_x5") -> int:
        return dispatch(self.arguments(name, *overrides, recipe=recipe))

    def summary(self, name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.root / name / "summary.json").read_text())
        return loaded

    def metrics(self, name: str) -> list[dict[str, Any]]:
        """The record without the one thing that no two runs share, their speed."""
        lines = (self.root / name / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return [{k: v for k, v in r.items() if k != "images_per_second"} for r in records]

    def weights(self, name: str, file: str = "last.pt") -> dict[str, torch.Tensor]:
        loaded: dict[str, torch.Tensor] = checkpoint.load(self.root / name / "checkpoints" / file)[
            "network"
        ]
        return loaded

    def assert_equal(self, one: str, other: str) -> None:
        """Bit for bit: weights, statistics, the whole record, best and milestones."""
        first, second = self.weights(one), self.weights(other)
        assert first.keys() == second.keys()
        assert [name for name in first if not torch.equal(first[name], second[name])] == []
        assert self.metrics(one) == self.metrics(other)
        for key in ("status", "step", "images_seen", "best", "milestones", "started_learning"):
            assert self.summary(one)[key] == self.summary(other)[key], key


@pytest.fixture
def runs(tmp_path: Path, images: Path) -> Runs:
    return Runs(tmp_path / "outputs", images)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Runs:
    """One run of 12 steps with dropout, to which the others are held; `inception` needs no BN."""
    runs = Runs(tmp_path_factory.mktemp("undisturbed"), images)
    assert runs.train("whole", "milestones=[0.2,1.0]", recipe="bn_baseline") == 0
    return runs


@pytest.fixture
def twin(tmp_path: Path, undisturbed: Runs) -> Runs:
    """Runs beside the undisturbed one."""
    root = tmp_path / "outputs"
    root.mkdir()
    (root / "whole").symlink_to(undisturbed.root / "whole")
    return Runs(root, undisturbed.images)


TWIN = "milestones=[0.2,1.0]"


def test_what_a_run_leaves(undisturbed: Runs) -> None:
    folder = undisturbed.root / "whole"
    for name in ("config.yaml", "metrics.jsonl", "summary.json", "environment.json"):
        assert (folder / name).is_file()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "best.pt",
        "last.pt",
        "previous.pt",
    ]
    records = undisturbed.metrics("whole")
    trained = [r for r in records if r["kind"] == "train"]
    evaluated = [r for r in records if r["kind"] == "validation"]
    assert [r["step"] for r in trained] == [2, 4, 6, 8, 10, 12]
    assert [(r["step"], r["count"]) for r in evaluated] == [(4, 15), (8, 15), (12, 15)]
    assert all(0 <= r["top1"] <= r["top5"] <= 1 for r in evaluated)
    assert all((r["statistics"], r["population_batches"]) == ("population", 3) for r in evaluated)
    summary = undisturbed.summary("whole")
    assert (summary["recipe"], summary["scale"], summary["seed"]) == ("bn_baseline", "demo", 0)
    assert (summary["status"], summary["step"], summary["images_seen"]) == ("finished", 12, 96)
    best = max(evaluated, key=lambda r: (r["top1"], -r["step"]))
    assert summary["best"] == {"top1": best["top1"], "step": best["step"]}
    assert [m["target"] for m in summary["milestones"]] == [0.2, 1.0]
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["data_fingerprint"] and environment["versions"]["torch"]


def test_the_accuracy_recorded_is_that_of_the_file_saved(undisturbed: Runs) -> None:
    from bn_inception.network import Inception, NetworkConfig, Normalization

    state = checkpoint.load(undisturbed.root / "whole" / "checkpoints" / "best.pt")
    config = NetworkConfig(
        normalization=Normalization.batch,
        local_response_normalization=True,
        width=0.0625,
        image_size=16,
    )
    network = Inception(config, len(state["classes"]))
    network.load_state_dict(state["network"])
    source = open_sources(DataConfig(DataKind.folder, str(undisturbed.images))).validation
    # Batches of 4 over 15 images: the tail counts, and nothing counts twice.
    for size in (4, 15):
        batches = validation_batches(
            source,
            image_size=16,
            batch=size,
            workers=0,
            on_error=OnError.fail,
            backend=Backend.fast,
        )
        result = evaluate(network, batches, torch.device("cpu"))
        assert result is not None and result.count == 15
        assert result.top1 == undisturbed.summary("whole")["best"]["top1"]


@pytest.mark.parametrize("crash_at", [1, 3, 4, 7, 12])
def test_a_crash_loses_only_what_follows_the_checkpoint(
    twin: Runs, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    """Checkpoints fall on steps 3, 6, 9 and 12: in mid-epoch and inside a log interval."""
    update = loop.train_step
    done = 0

    def crash(*arguments: Any, **named: Any) -> Any:
        nonlocal done
        done += 1
        if done == crash_at:
            raise MemoryError
        return update(*arguments, **named)

    monkeypatch.setattr(loop, "train_step", crash)
    with pytest.raises(MemoryError):
        twin.train("crashed", TWIN, recipe="bn_baseline")
    monkeypatch.undo()
    assert twin.summary("crashed")["status"] == "interrupted"
    assert twin.train("crashed", TWIN, "run.resume=must", recipe="bn_baseline") == 0
    twin.assert_equal("crashed", "whole")


@pytest.mark.parametrize(
    ("number", "during"),
    [
        (signal.SIGTERM, "train_step"),
        (signal.SIGINT, "train_step"),
        (signal.SIGTERM, "judged_network"),
        (signal.SIGUSR1, "evaluate"),
        (signal.SIGHUP, "train_step"),
    ],
)
def test_a_signal_saves_at_once_and_the_run_continues(
    twin: Runs, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, during: str
) -> None:
    call = getattr(loop, during)

    def interrupt(*arguments: Any, **named: Any) -> Any:
        os.kill(os.getpid(), number)
        return call(*arguments, **named)

    monkeypatch.setattr(loop, during, interrupt)
    if during == "judged_network":  # noticed in Algorithm 2 itself, before an image is judged
        monkeypatch.setattr(loop, "evaluate", None)
    status = twin.train("stopped", TWIN, recipe="bn_baseline")
    monkeypatch.undo()
    assert status == 128 + number
    stopped_at = 1 if during == "train_step" else 4
    assert twin.summary("stopped")["status"] == "interrupted"
    last = twin.root / "stopped" / "checkpoints" / "last.pt"
    saved = checkpoint.load(last)
    assert saved["step"] == stopped_at
    # Weights that were not judged carry the statistics that they were trained with, and say so.
    assert saved["population_batches"] is None
    assert all(torch.equal(v, saved["network"][k]) for k, v in saved["running_statistics"].items())
    # Saved without validating first, and nothing half-counted.
    assert all(r["kind"] == "train" for r in twin.metrics("stopped"))
    assert twin.train("stopped", TWIN, "run.resume=auto", recipe="bn_baseline") == 0
    twin.assert_equal("stopped", "whole")


def test_a_signal_at_the_last_step_leaves_the_last_evaluation_to_the_resumed_run(
    twin: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = loop.train_step
    steps = 0

    def interrupt(*arguments: Any, **named: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(*arguments, **named)

    monkeypatch.setattr(loop, "train_step", interrupt)
    assert twin.train("ended", TWIN, recipe="bn_baseline") == 128 + signal.SIGTERM
    monkeypatch.undo()
    assert checkpoint.load(twin.root / "ended" / "checkpoints" / "last.pt")["step"] == 12
    assert twin.train("ended", TWIN, "run.resume=must", recipe="bn_baseline") == 0
    twin.assert_equal("ended", "whole")


@pytest.mark.parametrize(
    "evaluated",
    [("train.evaluate_every=1",), ("train.evaluate_every=12", "train.population_batches=7")],
)
def test_evaluations_change_nothing(twin: Runs, evaluated: tuple[str, ...]) -> None:
    """Weights, optimizer and running statistics, with dropout, whatever is judged meanwhile."""
    assert twin.train("judged", TWIN, *evaluated, recipe="bn_baseline") == 0
    one, other = (
        checkpoint.load(twin.root / name / "checkpoints" / "last.pt")
        for name in ("judged", "whole")
    )
    for key in ("running_statistics", "network"):
        for name, tensor in one[key].items():
            if key == "running_statistics" or name not in one["running_statistics"]:
                assert torch.equal(tensor, other[key][name]), name
    momenta = (state["optimizer"]["state"] for state in (one, other))
    for mine, theirs in zip(*(entries.values() for entries in momenta), strict=True):
        assert torch.equal(mine["momentum_buffer"], theirs["momentum_buffer"])
    trained = [
        [r for r in twin.metrics(name) if r["kind"] == "train"] for name in ("judged", "whole")
    ]
    assert trained[0] == trained[1]


def test_both_checkpoints_carry_population_statistics_and_the_running_ones_beside(
    undisturbed: Runs,
) -> None:
    for file in ("best.pt", "last.pt"):
        state = checkpoint.load(undisturbed.root / "whole" / "checkpoints" / file)
        assert state["population_batches"] == 3
        name = "rows.conv1.normalization.running_var"
        # 12 steps have moved the running ones by a fifth; they began at 1.
        assert not torch.allclose(
            state["network"][name], state["running_statistics"][name], rtol=0.2
        )


def test_a_network_without_batch_normalization_reads_nothing_more(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PopulationBatches, "inputs", None)
    assert runs.train("plain", recipe="inception") == 0
    records = [r for r in runs.metrics("plain") if r["kind"] == "validation"]
    assert [(r["statistics"], r["population_batches"]) for r in records] == [(None, None)] * 3
    state = checkpoint.load(runs.root / "plain" / "checkpoints" / "best.pt")
    assert (state["population_batches"], state["running_statistics"]) == (None, {})


@pytest.mark.parametrize("minutes", ["1e-9", "null"])
def test_checkpoints_by_the_clock_change_nothing(
    twin: Runs, monkeypatch: pytest.MonkeyPatch, minutes: str
) -> None:
    """Due at every step, or never; crashed at step 5, two steps after the last one by steps."""
    update = loop.train_step
    done = 0

    def crash(*arguments: Any, **named: Any) -> Any:
        nonlocal done
        done += 1
        if done == 6:
            raise MemoryError
        return update(*arguments, **named)

    monkeypatch.setattr(loop, "train_step", crash)
    clock = f"train.checkpoint_minutes={minutes}"
    with pytest.raises(MemoryError):
        twin.train("clocked", TWIN, clock, recipe="bn_baseline")
    monkeypatch.undo()
    saved = checkpoint.load(twin.root / "clocked" / "checkpoints" / "last.pt")["step"]
    assert saved == (3 if minutes == "null" else 5)
    assert twin.train("clocked", TWIN, clock, "run.resume=must", recipe="bn_baseline") == 0
    twin.assert_equal("clocked", "whole")


def test_a_clock_that_stands_still_is_refused(runs: Runs) -> None:
    with pytest.raises(UserError, match=r"train\.checkpoint_minutes: 0\.0 is not a positive"):
        runs.train("never", "train.checkpoint_minutes=0")


def test_other_seeds_are_other_runs(twin: Runs) -> None:
    assert twin.train("seed1", TWIN, "run.seed=1", recipe="bn_baseline") == 0
    assert twin.metrics("seed1") != twin.metrics("whole")


def test_the_same_run_again_is_the_same(twin: Runs) -> None:
    assert twin.train("again", TWIN, "data.workers=1", recipe="bn_baseline") == 0
    twin.assert_equal("again", "whole")


def test_a_finished_run_resumes_to_itself_and_can_be_made_longer(twin: Runs) -> None:
    assert twin.train("longer", TWIN, "train.steps=8", recipe="bn_baseline") == 0
    assert twin.train("longer", TWIN, "train.steps=8", "run.resume=must", recipe="bn_baseline") == 0
    assert twin.summary("longer")["step"] == 8
    assert twin.train("longer", TWIN, "run.resume=must", recipe="bn_baseline") == 0
    twin.assert_equal("longer", "whole")


def test_an_existing_folder_is_refused_and_left_alone(undisturbed: Runs) -> None:
    before = undisturbed.summary("whole")
    with pytest.raises(UserError, match=r"run\.resume=must"):
        undisturbed.train("whole", TWIN, recipe="bn_baseline")
    assert undisturbed.summary("whole") == before


def test_resuming_what_is_not_there_is_refused(runs: Runs) -> None:
    with pytest.raises(UserError, match="no run to resume"):
        runs.train("absent", "run.resume=must")
    assert not runs.root.exists()


def test_resuming_with_another_configuration_names_every_key(undisturbed: Runs) -> None:
    with pytest.raises(UserError) as caught:
        undisturbed.train(
            "whole", TWIN, "run.resume=must", "optimizer.momentum=0.5", "network.dropout=0.1",
            recipe="bn_baseline",
        )  # fmt: skip
    text = str(caught.value)
    assert "network.dropout was 0.4, is 0.1" in text
    assert "optimizer.momentum was 0.9, is 0.5" in text


def test_resuming_on_other_images_is_refused(twin: Runs, tmp_path: Path) -> None:
    assert twin.train("moved", "train.steps=4") == 0
    twin.images = write_images(tmp_path / "others", train=15)
    with pytest.raises(UserError, match=r"data\.root: the images differ"):
        twin.train("moved", "run.resume=must")


def test_missing_checkpoints_are_no_reason_to_start_from_scratch(runs: Runs) -> None:
    assert runs.train("emptied", "train.steps=4") == 0
    before = runs.metrics("emptied")
    for path in (runs.root / "emptied" / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"holds no last\.pt"):
        runs.train("emptied", "run.resume=must", "train.steps=8")
    assert runs.metrics("emptied") == before


def copied(undisturbed: Runs, runs: Runs, name: str = "whole") -> Path:
    """A finished run that may be changed."""
    return Path(shutil.copytree(undisturbed.root / "whole", runs.root / name))


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_a_run_that_does_not_say_what_it_was_is_not_continued(
    undisturbed: Runs, runs: Runs
) -> None:
    folder = copied(undisturbed, runs)
    (folder / "config.yaml").unlink()
    before = content(folder)
    with pytest.raises(UserError, match=r"config\.yaml: missing"):
        runs.train("whole", TWIN, "run.resume=auto", "run.seed=3", recipe="bn_x30")
    assert content(folder) == before


@pytest.mark.parametrize("theirs", [("run.seed=1",), ("optimizer.momentum=0.8",)])
def test_another_runs_checkpoint_is_refused(
    undisturbed: Runs, runs: Runs, theirs: tuple[str, ...]
) -> None:
    folder = copied(undisturbed, runs)
    assert runs.train("other", TWIN, "train.steps=4", *theirs, recipe="bn_baseline") == 0
    shutil.copy(runs.root / "other" / "checkpoints" / "last.pt", folder / "checkpoints")
    before = content(folder)
    with pytest.raises(UserError, match=r"checkpoint is of another run \(bn_baseline, seed [01];"):
        runs.train("whole", TWIN, "run.resume=must", recipe="bn_baseline")
    assert content(folder) == before


def test_lost_and_exchanged_checkpoints_are_said(
    undisturbed: Runs, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(undisturbed, runs) / "checkpoints"
    (folder / "best.pt").rename(folder / "last.pt")
    assert runs.train("whole", TWIN, "run.resume=must", recipe="bn_baseline") == 0
    said = capsys.readouterr().err
    assert re.search(r"last\.pt: holds no optimizer.*continuing from previous\.pt at step 9", said)
    assert re.search(r"best\.pt is missing: the network of step \d+, the best so far", said)
    for name in ("last.pt", "previous.pt", "best.pt"):
        (folder / name).unlink(missing_ok=True)
    shutil.copy(undisturbed.root / "whole" / "checkpoints" / "best.pt", folder)
    (folder.parent / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"holds no last\.pt or previous\.pt"):
        runs.train("whole", TWIN, "run.resume=must", recipe="bn_baseline")


def test_other_durations_are_said_and_written_down(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runs.train("longer", "train.steps=4") == 0
    assert runs.train("longer", "train.steps=6", "train.log_every=1", "run.resume=must") == 0
    said = capsys.readouterr().err
    assert "train.steps was 4, is 6 from step 4 on" in said
    assert "train.log_every was 2, is 1 from step 4 on" in said
    folder = runs.root / "longer"
    assert "\n  steps: 6\n  evaluate_every" in (folder / "config.yaml").read_text()
    environment = json.loads((folder / "environment.json").read_text())
    changed = {"train.log_every": [2, 1], "train.steps": [4, 6]}
    assert environment["changes"] == [{"step": 4, "changed": changed}]
    assert runs.train("longer", "train.steps=6", "train.log_every=1", "run.resume=must") == 0
    assert "from step" not in capsys.readouterr().err
    assert json.loads((folder / "environment.json").read_text())["changes"] == [
        {"step": 4, "changed": changed}
    ]


@pytest.mark.parametrize("key", ["optimizer", "recorder", "interval", "network"])
def test_a_checkpoint_that_does_not_fit_is_one_line(
    undisturbed: Runs, runs: Runs, key: str
) -> None:
    folder = copied(undisturbed, runs) / "checkpoints"
    state = checkpoint.load(folder / "last.pt")
    checkpoint.save({**state, key: {"nothing": 1}}, folder)
    with pytest.raises(UserError, match="the checkpoint does not fit this run"):
        runs.train("whole", TWIN, "run.resume=must", recipe="bn_baseline")


def test_divergence_is_a_result(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.train("fast", "optimizer.learning_rate=1e20", recipe="inception_x5") == 0
    summary = runs.summary("fast")
    assert summary["status"] == "diverged"
    assert 1 <= summary["diverged"]["step"] <= 12
    assert summary["diverged"]["layer"]
    assert f"diverged at step {summary['diverged']['step']}" in capsys.readouterr().out


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Runs break at step 3 and, as on CUDA, do not look; a function sets what happens at step 4."""
    create, update, then = Session.__init__, loop.train_step, list[Callable[[], None]]()

    def unwatched(session: Session, *args: Any) -> None:
        create(session, *args)
        session.check_every_step = False

    def broken(network: Any, optimizer: Any, images: torch.Tensor, *args: Any, **more: Any) -> Any:
        steps.append(len(steps) + 1)
        if steps[-1] == 3:
            images = images * math.nan
        if steps[-1] == 4 and then:
            then[0]()
        return update(network, optimizer, images, *args, **more)

    steps: list[int] = []
    monkeypatch.setattr(Session, "__init__", unwatched)
    monkeypatch.setattr(loop, "train_step", broken)
    return then.append


def assert_nothing_broken_is_kept(runs: Runs, name: str) -> None:
    for file in (runs.root / name / "checkpoints").iterdir():
        assert all(value.isfinite().all() for value in runs.weights(name, file.name).values())


RARE = ("train.log_every=12", "train.checkpoint_every=12", "train.evaluate_every=12")


@pytest.mark.parametrize(
    "due",
    ["train.checkpoint_every=4", "train.evaluate_every=4", "train.checkpoint_minutes=1e-9", "stop"],
)
def test_a_broken_network_is_neither_saved_nor_judged(
    due: str, runs: Runs, breaking: Callable[[Callable[[], None]], None]
) -> None:
    if due == "stop":
        breaking(lambda: os.kill(os.getpid(), signal.SIGTERM))
    overrides = () if due == "stop" else (due,)
    assert runs.train("broken", *RARE, *overrides) == 0
    summary = runs.summary("broken")
    assert (summary["status"], summary["diverged"]["step"]) == ("diverged", 3)
    assert summary["best"] is None
    assert_nothing_broken_is_kept(runs, "broken")


def test_a_broken_network_is_not_saved_for_bad_input(
    runs: Runs, breaking: Callable[[Callable[[], None]], None]
) -> None:
    def unreadable() -> None:
        raise UserError("an image cannot be read")

    breaking(unreadable)
    with pytest.raises(UserError):
        runs.train("broken", *RARE, "train.checkpoint_every=2")
    assert runs.summary("broken")["status"] == "interrupted"
    assert checkpoint.load(runs.root / "broken" / "checkpoints" / "last.pt")["step"] == 2
    assert_nothing_broken_is_kept(runs, "broken")


def test_a_dead_start_is_noticed_and_the_run_goes_on(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = ("optimizer.learning_rate=1e-9", "train.log_every=6", "train.start_check=6")
    assert runs.train("dead", *slow, recipe="inception_sigmoid") == 0
    summary = runs.summary("dead")
    assert (summary["status"], summary["started_learning"]) == ("finished", False)
    assert capsys.readouterr().err.count("has not started to learn") == 1


def test_a_network_that_learns_is_not_called_dead(runs: Runs) -> None:
    longer = ("train.steps=150", "train.start_check=40", "train.evaluate_every=150")
    assert runs.train("alive", *longer, "augmentation.photometric=none") == 0
    summary = runs.summary("alive")
    assert summary["started_learning"] is True
    assert summary["best"]["top1"] > 0.5


@pytest.fixture
def with_a_broken_image(tmp_path: Path) -> Path:
    root = write_images(tmp_path / "broken")
    (root / "train" / "n0001" / "3.JPEG").write_bytes(b"not an image")
    (root / "val" / "n0002" / "1.JPEG").write_bytes(b"")
    return root


def test_an_unreadable_image_stops_the_run_and_is_named(
    runs: Runs, with_a_broken_image: Path
) -> None:
    runs.images = with_a_broken_image
    with pytest.raises(UserError, match=r"n000\d/\d\.JPEG.*data\.on_error=skip"):
        runs.train("failing")
    assert runs.summary("failing")["status"] == "interrupted"


def test_or_is_replaced_and_tallied(runs: Runs, with_a_broken_image: Path) -> None:
    runs.images = with_a_broken_image
    assert runs.train("skipping", "data.on_error=skip") == 0
    summary = runs.summary("skipping")
    assert list(summary["replaced_images"]) == ["n0001/3.JPEG"]
    last = checkpoint.load(runs.root / "skipping" / "checkpoints" / "last.pt")
    assert str(runs.images) not in str(last["recorder"])
    assert summary["unreadable_validation_images"] == 1
    assert all(r["count"] == 15 for r in runs.metrics("skipping") if r["kind"] == "validation")
