"""The command line as a person meets it: one line for a mistake, status 2, nothing written."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from small_runs import TINY

from bn_inception import UserError
from bn_inception.cli.help import COMMANDS, command_help, keys_of
from bn_inception.cli.main import dispatch, find, main
from bn_inception.config import compose, read_yaml, run_config
from bn_inception.config.compose import schema_keys
from bn_inception.data import DataConfig

REPOSITORY = Path(__file__).resolve().parents[2]


def bad(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command line on something wrong and return its one line."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("bn-inception: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("optimizer.lr=0.1", ["optimizer.lr", "write optimizer.learning_rate=0.1"]),
        ("epochs=90", ["write train.steps='90 epochs'"]),
        ("batch_size=64", ["write batch.images=64"]),
        ("seed=1", ["close: run.seed"]),
        ("milestones=0.72", ["write a list, milestones=[0.72]"]),
        ("batch.imges=32", ["batch.imges", "batch.images"]),
        ("steps=100", ["steps", "train.steps"]),
        ("recipe=bn_x50", ["recipe=bn_x50", "bn_x5", "bn_x30", "inception_sigmoid"]),
        ("recipe=BN-Baseline", ["write recipe=bn_baseline"]),
        ("recipe=ensemble", ["recipe=ensemble", "ensemble/1", "ensemble/6", "bn_x30"]),
        ("recipe=null", ["configuration: "]),
        ("recipe=bn_x5,bn_x30", ["recipe"]),
        ("scale=[1]", ["configuration: "]),
        ("data.root=${oc.env:NO_SUCH_VARIABLE}", ["configuration: "]),
        ("optimizer.momentum=1e999", ["optimizer.momentum", "out of range"]),
        (f"optimizer.momentum={400 * '9'}", ["optimizer.momentum", "64 bits"]),
        ("scale=cpuu", ["scale=cpuu", "cpu, demo, paper, small"]),
        ("data=imagnet", ["data=imagnet", "imagenet"]),
        ("optimizer.learning_rate=fast", ["optimizer.learning_rate", "'fast'"]),
        ("optimizer.learning_rate=-1", ["optimizer.learning_rate", "-1"]),
        ("network.nonlinearity=tanh", ["network.nonlinearity", "'tanh'", "relu, sigmoid"]),
        ("network.pool_projection=64", ["pool_projection", "64", "96", "128"]),
        ("train.steps=8 weeks", ["train.steps", "8 weeks", "8 epochs"]),
        ("train.steps=0", ["train.steps", "0"]),
        ("batch.images=1", ["batch.images", "1"]),
        ("batch.images=0", ["batch.images", "0"]),
        ("scale.compression=0", ["scale.compression", "0"]),
        ("run.resume=perhaps", ["run.resume", "perhaps", "never, must, auto"]),
        ("run.seed=-1", ["run.seed", "-1"]),
        ("run.name=a/b", ["run.name", "a/b"]),
        ("milestones=[72.2]", ["milestones", "72.2", "0.722"]),
        ("machine.device=gpu", ["machine.device", "gpu", "auto, cpu, cuda"]),
        ("data.on_error=ignore", ["data.on_error", "ignore", "fail, skip"]),
        ("data=folder", ["data.root"]),
        ("data.first_classes=1", ["data.first_classes", "1"]),
        ("--multi", ["--multi", "--help"]),
        ("somefolder", ["somefolder", "key=value"]),
        ("a=[1", ["a=[1"]),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    override: str,
    named: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    line = bad(["train", override], capsys)
    for word in named:
        assert word in line
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_command_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "close: train" in bad(["trian"], capsys)


def test_the_shell_completes_commands_and_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dispatch(["-sc", "install=bash"]) == 0
    assert "complete -o nospace" in capsys.readouterr().out
    for typed, completed in (("", "verify-resume"), ("evaluate crop", "crops=")):
        monkeypatch.setenv("COMP_LINE", f"bn-inception {typed}")
        assert dispatch(["-sc", "query=bash"]) == 0
        assert completed in capsys.readouterr().out
    assert "-sc: install=csh; write install=bash" in bad(["-sc", "install=csh"], capsys)


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BN_INCEPTION_DEBUG", "1")
    with pytest.raises(UserError):
        main(["train", "recipe=nothing"])


def test_every_key_is_read_from_its_yaml_and_nothing_is_left_open() -> None:
    composed = compose("train", [])
    del composed["optimizer"]["momentum"]
    with pytest.raises(UserError, match=r"optimizer\.momentum: not set"):
        run_config(composed)
    composed["optimizer"] |= {"momentum": 0.9, "nesterov": True}
    with pytest.raises(UserError, match=r"optimizer\.nesterov: there is no such key"):
        run_config(composed)


def test_cfg_job_prints_what_would_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_help_lists_the_data_settings_that_are_read(command: str, tmp_path: Path) -> None:
    usage = command_help(command)
    other: dict[str, object] = {
        "root": str(tmp_path / "nowhere"), "cache": "x", "first_classes": 3,
        "workers": 1, "on_error": "skip", "backend": "pillow",
    }  # fmt: skip
    assert other.keys() == {field.name for field in fields(DataConfig)} - {"kind"}
    for key, value in other.items():
        with pytest.raises(UserError) as caught:
            dispatch([*command.split(), f"data.{key}={value}"])
        refused = f"is not read by {command}" in str(caught.value)
        assert (f"data.{key}=" in usage) != refused, key


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_and_says_what_every_key_is(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dispatch([*command.split(), "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: bn-inception {command}")
    assert [line for line in printed.splitlines() if len(line) > 80] == []
    assert [key.name for key in keys_of(command) if not key.comment] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_keys_of_the_help_are_those_of_the_schema(command: str) -> None:
    schema = find(command).schema
    inner = {"network.caffe_padding"}  # set by import-weights alone
    assert {key.name for key in keys_of(command)} == set(schema_keys(schema)) - inner


def test_the_overview_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(line.startswith(f"  {name}") for line in lines) for name in COMMANDS)


def run(command: list[str], cwd: Path) -> str:
    """What a Python command prints."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, env=environment,
        timeout=300, check=True,
    ).stdout  # fmt: skip


def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, bn_inception.cli.main as m\n"
        "try: m.main(['--help'])\n"
        "finally: assert 'torch' not in sys.modules and 'hydra' not in sys.modules"
    )
    assert "compare" in run(["-c", code], tmp_path)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "way",
    [
        [str(REPOSITORY / "scripts" / "train.py")],
        ["-m", "bn_inception", "train"],
        ["-c", "from bn_inception.cli.main import main; main()", "train"],
    ],
)
def test_three_ways_to_train_are_one(way: list[str], tmp_path: Path, images: Path) -> None:
    given = [*TINY, "train.steps=2", f"data.root={images}", "run.name=run"]
    assert "run: finished" in run([*way, *given, "recipe=inception"], tmp_path)
    assert (tmp_path / "outputs" / "run" / "metrics.jsonl").read_text().count("\n") == 2


def test_comparing_nothing_or_what_is_no_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bad(["compare"], capsys)
    assert str(tmp_path) in bad(["compare", str(tmp_path)], capsys)
