"""`bn-inception benchmark step`: which rows there are and what they hold; no figure is judged."""

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from bn_inception import UserError
from bn_inception.benchmark import step as benchmark
from bn_inception.benchmark.reference_loop import ReferenceLoop
from bn_inception.network import Precision
from bn_inception.training import execution

SMALL = ["scale=demo", "scale.image_size=16", "scale.width=0.0625", "machine.device=cpu",
         "machine.threads=1", "benchmark.batches=[4]", "benchmark.rounds=2",
         "benchmark.steps=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "matrix_rate", lambda device, precision: 1e9)
    monkeypatch.setattr(benchmark, "copy_rate", lambda device: 1e9)
    monkeypatch.setattr(execution, "BACKEND", "eager")


def run(arguments: list[str]) -> int:
    from bn_inception.cli.benchmark_step import run as measured

    return measured(arguments)


def test_every_way_has_a_row_and_the_file_holds_them(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "step.json"
    given = ["data=folder", f"data.root={images}", "data.workers=0", f"output={output}"]
    assert run([*SMALL, *given]) == 0
    table = capsys.readouterr().out
    written = json.loads(output.read_text())
    rows = {row["name"]: row for row in written["rows"]}
    assert list(rows) == [
        "plain loop", "our step, every piece off", "+ channels_last", "+ fused update", "+ bf16",
        "ours: bare step", "augmentation alone", "ours: whole loop",
        "ours: whole loop, from the loader", "limit",
    ]  # fmt: skip
    reference = rows["plain loop"]["milliseconds"]
    for name, row in rows.items():
        assert name in table and row["batch"] == 4
        assert row["images_per_second"] == pytest.approx(4000 / row["milliseconds"])
        if name != "augmentation alone":
            assert row["ratio_to_reference"] == pytest.approx(reference / row["milliseconds"])
    assert rows["plain loop"]["ratio_to_reference"] == 1
    assert "over the bare step" in table and "is loading" in table
    assert written["machine"]["precision"] == "fp32" and written["versions"]["torch"]
    assert not list(Path.cwd().glob("outputs/benchmark*"))


def test_a_piece_that_fails_is_a_row_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(function: object) -> object:
        def fail(*arguments: object) -> None:
            raise RuntimeError("no compiler")

        return fail

    from bn_inception.benchmark.step import _pieces, _turn, _Way
    from bn_inception.training.machine import Machine

    names = [name for name, _ in _pieces(torch.device("cpu"), compiled=True)]
    assert names[-1] == "+ compile"
    way = _Way("+ compile", lambda: None, broken(None), 1)
    _turn(way, 1, torch.device("cpu"), 0)
    assert way.failure == "failed: no compiler" and not way.seconds
    cuda = [machine for _, machine in _pieces(torch.device("cuda"), compiled=True)]
    assert cuda[-1] == Machine(Precision.bf16, True, True, True, True)


def test_the_limit_is_the_larger_of_products_and_memory() -> None:
    """1.935e9 multiply-adds at 224, three times in an update, at 1 GFLOP/s: 371 s for 32 images."""
    from bn_inception.network import Inception, NetworkConfig, feature_values, multiply_adds

    with torch.device("meta"):
        network = Inception(NetworkConfig(), 1000)
    assert 2 * 3 * 32 * multiply_adds(network, 224) / 1e9 == pytest.approx(371.5, rel=0.01)
    # conv1's two halves alone are (24 + 64) x 112 x 112.
    assert feature_values(network, 224) > 88 * 112 * 112
    small = torch.device("cpu")
    assert benchmark._best(lambda: None, small, 2) >= 0


def test_the_plain_loop_makes_the_update_of_its_script() -> None:
    """Plain SGD on main plus three tenths of auxiliary loss, in float64 up to rounding."""
    import bn_inception

    network = bn_inception.build_network("bn_x5", 4, width=0.0625, image_size=16).double().train()
    twin = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 16, 16, generator=generator).double() * 2 - 1
    labels = torch.arange(8) % 4
    loop = ReferenceLoop(network, 0.05, 0.9, 1e-4)
    loop.step(images, labels)

    output = twin(images)
    loss = F.cross_entropy(output.main, labels) + 0.3 * F.cross_entropy(output.auxiliary, labels)
    loss.backward()
    for parameter, before in zip(network.parameters(), twin.parameters(), strict=True):
        expected = before - 0.05 * (before.grad + 1e-4 * before)
        torch.testing.assert_close(parameter, expected, rtol=1e-9, atol=1e-9)
    correct = (output.main.argmax(1) == labels).sum().item()
    assert loop._meters["loss"][-1] == pytest.approx(loss.item(), rel=1e-9)
    assert loop._meters["acc1"][-1] == pytest.approx(12.5 * correct)
    assert loop._meters["acc5"][-1] == 100  # four classes
    loop.step(images, labels)
    assert loop._meters["loss"][-1] != loop._meters["loss"][0]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("benchmark.batches=[1]", ["benchmark.batches", "1"]),
        ("benchmark.rounds=0", ["benchmark.rounds", "0"]),
        ("output=/nowhere/at/all.json", ["output", "/nowhere/at"]),
        ("somefolder", ["somefolder", "key=value"]),
    ],
)
def test_a_mistake_is_said_before_anything_is_measured(override: str, named: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        run([*SMALL, override])
    assert all(word in str(caught.value) for word in named)
