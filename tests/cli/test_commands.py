"""The command line as a person meets it: one line for a mistake, help, and what `plan` says."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
from small_runs import TINY

from bn_inception import UserError
from bn_inception.cli.help import COMMANDS, command_help, keys_of
from bn_inception.cli.main import dispatch, find, main
from bn_inception.config import compose, read_yaml, run_config
from bn_inception.data import DataConfig
from bn_inception.paper.results import FIGURE_3

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("train optimizer.lr=0.1", ["optimizer.lr", "write optimizer.learning_rate=0.1"]),
        ("train epochs=90", ["write train.steps='90 epochs'"]),
        ("train batch_size=64", ["write batch.images=64"]),
        ("train seed=1", ["close: run.seed"]),
        ("train milestones=0.72", ["write a list, milestones=[0.72]"]),
        ("train batch.imges=32", ["batch.imges", "batch.images"]),
        ("train recipe=bn_x50", ["recipe=bn_x50", "bn_x5", "bn_x30", "inception_sigmoid"]),
        ("train recipe=BN-Baseline", ["write recipe=bn_baseline"]),
        ("train recipe=ensemble", ["recipe=ensemble", "ensemble/1", "ensemble/6", "bn_x30"]),
        ("train recipe=null", ["configuration: "]),
        ("train recipe=bn_x5,bn_x30", ["recipe"]),
        ("train scale=[1]", ["configuration: "]),
        ("train data.root=${oc.env:NO_SUCH_VARIABLE}", ["configuration: "]),
        ("train optimizer.momentum=1e999", ["optimizer.momentum", "out of range"]),
        (f"train optimizer.momentum={400 * '9'}", ["optimizer.momentum", "64 bits"]),
        ("train scale=cpuu", ["scale=cpuu", "cpu, demo, paper, small"]),
        ("train optimizer.learning_rate=fast", ["optimizer.learning_rate", "'fast'"]),
        ("train optimizer.learning_rate=-1", ["optimizer.learning_rate", "-1"]),
        ("train network.nonlinearity=tanh", ["network.nonlinearity", "'tanh'", "relu, sigmoid"]),
        ("train network.pool_projection=64", ["pool_projection", "64", "96", "128"]),
        ("train 'train.steps=8 weeks'", ["train.steps", "8 weeks", "8 epochs"]),
        ("train train.steps=0", ["train.steps", "0"]),
        ("train batch.images=1", ["batch.images", "1"]),
        ("train batch.images=abc", ["batch.images", "'abc'"]),
        ("train scale.compression=1e-308", ["optimizer.decay_every: inf"]),
        ("train scale.compression=0", ["scale.compression", "0"]),
        ("train run.resume=perhaps", ["run.resume", "perhaps", "never, must, auto"]),
        ("train run.seed=-1", ["run.seed", "-1"]),
        ("train run.name=a/b", ["run.name", "a/b"]),
        ("train milestones=[72.2]", ["milestones", "72.2", "0.722"]),
        ("train machine.device=gpu", ["machine.device", "gpu", "auto, cpu, cuda"]),
        ("train data.on_error=ignore", ["data.on_error", "ignore", "fail, skip"]),
        ("train data=folder", ["data.root"]),
        ("train data=folder data.root=~no_such/x", ["data.root: ~no_such/x does not exist"]),
        (f"audit data.root={300 * 'a'}", ["aaa: File name too long; check the path"]),
        ("train data.first_classes=1", ["data.first_classes", "1"]),
        ("train --multi", ["--multi", "--help"]),
        ("train somefolder", ["somefolder", "key=value"]),
        ("train a=[1", ["a=[1"]),
        ("trian", ["close: train"]),
        ("-sc install=csh", ["-sc: install=csh; write install=bash"]),
        ("benchmark inputs", ["benchmark inputs", "benchmark input, benchmark step"]),
        ("train -m hydra/launcher=nothing", ["nothing: ", "bn-inception[sweep]"]),
        ("train -m machine=cpu,auto", ["machine is in no run's name"]),
        ("claims -m", ["claims has no runs to make; train has"]),
        ("compare", ["no run folder given"]),
        ("compare .", ["summary.json: cannot be read (No such file", "give a run folder"]),
        ("claims nothing", ["nothing/summary.json: cannot be read (No such file"]),
        ("claims require=2", ["require: 2 does not fit; write a list, require=[2]"]),
        ("claims requires=[1]", ["there is no key requires; close: require"]),
        ("runs nowhere", ["nowhere: no such folder"]),
        ("runs .", [".: no run in it"]),
        ("evaluate outputs/a", ["outputs/a: evaluate takes key=value only, such as run=outputs/a"]),
        ("plan plan.step_images_per_second=-5", ["plan.step_images_per_second: -5"]),
        ("plan recipe=bn_x30 plan.processes=5 plan.steps=1", ["32", "5 processes"]),
        ("plan output=nowhere/plan.json", ["output: nowhere"]),
        ("benchmark input data.root=. benchmark.images=0", ["benchmark.images: 0"]),
        ("benchmark input data.root=. benchmark.workers=[-1,2]", ["benchmark.workers: -1"]),
        ("benchmark input data.root=. data.workers=3", ["workers: 3", "benchmark.workers=[3]"]),
        ("benchmark input data.root=. data.backend=pillow", ["backend: pillow", "leave it out"]),
        ("benchmark input data.root=. data=synthetic", ["data.root: '.'", "synthetic"]),
        ("benchmark input data.root=. output=/nowhere/all.json", ["output: /nowhere"]),
        ("benchmark step benchmark.batches=[1]", ["benchmark.batches: 1"]),
        ("benchmark step benchmark.rounds=0", ["benchmark.rounds: 0"]),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(line, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(shlex.split(line))
    out, said = capsys.readouterr()
    assert (caught.value.code, out, said.count("\n")) == (2, "", 1)
    assert said.startswith("bn-inception: ") and all(word in said for word in named)
    assert list(tmp_path.iterdir()) == []


def test_the_shell_completes_commands_and_keys(capsys, monkeypatch):
    assert dispatch(["-sc", "install=bash"]) == 0
    assert "complete -o nospace" in capsys.readouterr().out
    for typed, completed in (("", "verify-resume"), ("evaluate crop", "crops=")):
        monkeypatch.setenv("COMP_LINE", f"bn-inception {typed}")
        assert dispatch(["-sc", "query=bash"]) == 0
        assert completed in capsys.readouterr().out


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("BN_INCEPTION_DEBUG", "1")
    with pytest.raises(UserError):
        main(["train", "recipe=nothing"])


def test_every_key_is_read_from_its_yaml_and_nothing_is_left_open():
    composed = compose("train", [])
    del composed["optimizer"]["momentum"]
    with pytest.raises(UserError, match=r"optimizer\.momentum: not set"):
        run_config(composed)
    composed["optimizer"] |= {"momentum": 0.9, "nesterov": True}
    with pytest.raises(UserError, match=r"optimizer\.nesterov: there is no such key"):
        run_config(composed)


def test_cfg_job_prints_what_would_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dispatch(["train", "recipe=bn_x30", "scale=cpu", "--cfg", "job"]) == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    config = read_yaml(printed)
    assert config["train"]["steps"] == 6_000_000 / config["scale"]["compression"]
    assert config["recipe"]["learning_rate"] == 0.045
    assert config == compose("train", ["recipe=bn_x30", "scale=cpu"])
    assert list(tmp_path.iterdir()) == [printed]


@pytest.mark.parametrize("command", ["audit", "benchmark input"])
def test_help_lists_the_data_settings_that_are_read(command, tmp_path):
    usage = command_help(command)
    other = {
        "root": str(tmp_path / "nowhere"), "cache": "x", "first_classes": 3,
        "workers": 1, "on_error": "skip", "backend": "pillow",
    }  # fmt: skip
    assert other.keys() == {field.name for field in fields(DataConfig)} - {"kind"}
    for key, value in other.items():
        with pytest.raises(UserError) as caught:
            dispatch([*command.split(), f"data.{key}={value}"])
        refused = f"is not read by {command}" in str(caught.value)
        assert (f"data.{key}=" in usage) != refused, key


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_terminal_and_says_what_every_command_and_key_is(command, capsys):
    assert dispatch([*command.split(), "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: bn-inception {command or 'COMMAND'}")
    assert [line for line in printed.splitlines() if len(line) > 80] == []
    if command:
        assert [key.name for key in keys_of(command) if not key.comment] == []
    else:
        assert all(f"\n  {name} " in printed for name in COMMANDS)


def test_a_groups_base_says_what_its_keys_are_before_a_choice_does():
    (dropout,) = (key.comment for key in keys_of("train") if key.name == "network.dropout")
    assert dropout.startswith("before the classifier")


def schema_keys(schema, prefix=""):
    """Every leaf key of a dataclass of dataclasses, dotted."""
    for name, hint in get_type_hints(schema).items():
        inner = is_dataclass(hint)
        yield from schema_keys(hint, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_keys_of_the_help_are_those_of_the_schema(command):
    assert {key.name for key in keys_of(command)} == set(schema_keys(find(command).schema))


def run(command, cwd):
    """What a Python command prints."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, env=environment,
        timeout=300, check=True,
    ).stdout  # fmt: skip


def test_what_needs_no_torch_does_not_wait_for_it(tmp_path):
    runs = REPOSITORY / "results" / "tiny_imagenet_100" / "runs"
    code = (
        "import sys\n"
        "from bn_inception.cli.main import dispatch\n"
        "dispatch(['--help'])\n"
        "assert 'hydra' not in sys.modules\n"
        f"for line in (['train', '--help'], ['runs', '{runs}'], ['-sc', 'install=bash']):\n"
        "    dispatch(line)\n"
        "assert 'torch' not in sys.modules"
    )
    assert "finished" in run(["-c", code], tmp_path)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "way",
    [
        [str(REPOSITORY / "scripts" / "train.py")],
        ["-m", "bn_inception", "train"],
        ["-c", "from bn_inception.cli.main import main; main()", "train"],
    ],
)
def test_three_ways_to_train_are_one(way, tmp_path, images):
    given = [*TINY, "train.steps=2", f"data.root={images}", "run.name=run"]
    assert "run: finished" in run([*way, *given, "recipe=inception"], tmp_path)
    assert (tmp_path / "outputs" / "run" / "metrics.jsonl").read_text().count("\n") == 2


GIVEN = "plan.step_images_per_second=1000"


def planned(tmp_path, *arguments):
    file = tmp_path / "plan.json"
    assert dispatch(["plan", *arguments, f"output={file}"]) == 0
    return {row["run"]: row for row in json.loads(file.read_text())["rows"]}


def test_the_papers_longest_run_on_one_gpu_of_given_speed(tmp_path, capsys):
    (row,) = planned(tmp_path, "recipe=inception", GIVEN).values()
    # 31e6 updates of 32 images at 1000 a second, and 155 evaluations of 50,000 images at 3000.
    assert row["updates"] == 31_000_000
    assert row["hours"] == pytest.approx((31e6 * 0.032 + 155 * 50 / 3) / 3600)
    assert row["gpu_hours"] == row["hours"] and row["update_ms"] == pytest.approx(32)
    # More than 13,594,824 parameters, their gradients and momenta.
    assert 0.15 < row["device_gib"] < 10
    assert "asks for 1,000 images/s" in " ".join(capsys.readouterr().out.split())


def test_all_rows_the_ensemble_and_their_sum_in_80_columns(tmp_path, capsys):
    rows = planned(tmp_path, GIVEN)
    assert {*FIGURE_3, "inception_x5", "inception_sigmoid"} < rows.keys()
    total = rows.pop("all")
    assert rows["ensemble_6"]["updates"] == rows["bn_x30"]["updates"]
    for key in ("updates", "hours", "gpu_hours"):
        assert total[key] == pytest.approx(sum(row[key] for row in rows.values()))
    assert total["update_ms"] == pytest.approx(32)  # of every update alike, at the rate given
    assert total["device_gib"] == max(row["device_gib"] for row in rows.values())
    *printed, _ = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80


def test_eight_gpus_share_the_work(tmp_path):
    given = ("recipe=bn_x30", "batch=x8", "plan.processes=8", GIVEN)
    (row,) = planned(tmp_path, *given).values()
    (alone,) = planned(tmp_path, "recipe=bn_x30", GIVEN).values()
    # Each of eight holds 32 of 256 images, and an evaluation is divided among them.
    assert row["updates"] == 6_000_000 / 8 and row["update_ms"] == pytest.approx(32)
    assert row["gpu_hours"] == pytest.approx(8 * row["hours"])
    assert row["hours"] == pytest.approx(alone["hours"] / 8, rel=0.01)
    # One image each, which BN over features cannot normalize by itself.
    small = ("scale=demo", "recipe=bn_x5", "machine.device=cpu", "plan.processes=32")
    (one,) = planned(tmp_path, *small, "plan.steps=1").values()
    assert one["update_ms"] > 0 and one["device_gib"] > 0


def test_an_update_is_measured_where_no_rate_is_given(tmp_path, images, capsys):
    rows = planned(tmp_path, "plan.steps=2", "recipe=bn_x5", *TINY, f"data.root={images}")
    (row,) = rows.values()
    assert row["updates"] == 12
    assert row["update_ms"] > 0 and row["hours"] > 0
    assert "measured here" in capsys.readouterr().out
