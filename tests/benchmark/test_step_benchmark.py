"""`bn-inception benchmark step`: which rows there are and what they hold; no figure is judged."""

import copy
import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import bn_inception
from bn_inception.benchmark import step as benchmark
from bn_inception.benchmark.reference import PlainLoop
from bn_inception.cli.main import dispatch
from bn_inception.network import Precision
from bn_inception.training import machine
from bn_inception.training.machine import Machine
from bn_inception.training.settings import OptimizerConfig

SMALL = ["scale=demo", "scale.image_size=16", "scale.width=0.0625", "machine.device=cpu",
         "machine.threads=1", "benchmark.batches=[4]", "benchmark.rounds=2",
         "benchmark.steps=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(machine, "BACKEND", "eager")


def measured(output, *given):
    assert dispatch(["benchmark", "step", *SMALL, *given, f"output={output}"]) == 0
    return json.loads(output.read_text())


def test_every_way_has_a_row_and_the_file_holds_them(tmp_path, images, capsys):
    given = ["data=folder", f"data.root={images}", "data.workers=0", "batch=x8"]
    written = measured(tmp_path / "step.json", *given)
    table = capsys.readouterr().out
    rows = {row["name"]: row for row in written["rows"]}
    assert list(rows) == [
        "plain loop", "our step in float32", "+ bf16",
        "ours: step alone", "augmentation alone", "population statistics, a mini-batch",
        "ours: whole loop", "ours: whole loop, from the loader",
    ]  # fmt: skip
    for name, row in rows.items():
        assert name in table and row["batch"] == 4
        assert row["images_per_second"] == pytest.approx(4000 / row["milliseconds"])
        ratio = row["ratio_to_reference"]
        assert ratio is None if name.startswith(("augm", "popul")) else ratio > 0
    assert rows["plain loop"]["ratio_to_reference"] == 1
    # As many and as often as a run at scale=demo takes them; each is an eighth of an update.
    population, loop = (rows[name] for name in (benchmark.POPULATION, benchmark.LOOP))
    every, share = re.match(r"8 every (\d+) updates: ([\d.]+)%", population["note"]).groups()
    expected = 100 * population["milliseconds"] / int(every) / loop["milliseconds"]
    assert float(share) == pytest.approx(expected, abs=0.06)
    assert written["machine"]["precision"] == "fp32" and written["versions"]["torch"]
    assert not list(Path.cwd().glob("outputs/benchmark*"))


def test_a_piece_that_fails_is_a_row_that_says_so(monkeypatch, tmp_path):
    calls = []

    def compiled(function):
        calls.append(function)
        if len(calls) == 3:  # after the warm-up and the first round
            raise RuntimeError("no compiler\nand more")

    made = benchmark.our_step

    def our_step(name, *arguments):
        way = made(name, *arguments)
        if name == "+ bf16":
            way.start = benchmark.repeated(int, compiled, [1])
        return way

    monkeypatch.setattr(benchmark, "our_step", our_step)
    rows = measured(tmp_path / "step.json")["rows"]
    (row,) = [row for row in rows if row["name"] == "+ bf16"]
    assert row["note"] == "failed: no compiler" and list(row.values())[2:5] == [None] * 3


def test_the_pieces_of_a_device():
    on_cpu = [name for name, _ in benchmark._pieces(torch.device("cpu"), compiled=True)]
    assert on_cpu[-1] == "+ compile" and "+ tf32" not in on_cpu
    cuda = [machine for _, machine in benchmark._pieces(torch.device("cuda"), compiled=True)]
    assert cuda[-1] == Machine(Precision.bf16, compile=True)


def test_the_plain_loop_makes_the_update_of_its_script():
    """Plain SGD on main plus three tenths of auxiliary loss, in float64 up to rounding."""
    network = bn_inception.build_network("bn_x5", 4, width=0.0625, image_size=16).double().train()
    twin = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 16, 16, generator=generator).double() * 2 - 1
    labels = torch.arange(8) % 4
    loop = PlainLoop(network, OptimizerConfig(0.05, 0.9, 1e-4, 1.0, 1))
    loop.step(images, labels)

    output = twin(images)
    loss = F.cross_entropy(output.main, labels) + 0.3 * F.cross_entropy(output.auxiliary, labels)
    loss.backward()
    for parameter, before in zip(network.parameters(), twin.parameters(), strict=True):
        expected = before - 0.05 * (before.grad + 1e-4 * before)
        torch.testing.assert_close(parameter, expected, rtol=1e-9, atol=1e-9)
    correct = (output.main.argmax(1) == labels).sum().item()
    assert loop.meters["loss"] == pytest.approx(loss.item(), rel=1e-9)
    assert loop.meters["acc1"] == pytest.approx(12.5 * correct)
    assert loop.meters["acc5"] == 100  # four classes
