"""Published weights: an independent forward pass of their layout, and what is refused."""

import json
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from evaluation.networks import Malicious, refusal
from safetensors.torch import save_file
from torch import Tensor

from bn_inception.cli.main import dispatch
from bn_inception.network import checkpoint
from bn_inception.network.pretrained import import_weights

# The layout written out: name, input channels, output channels, kernel. Caffe's names.
STEM = [
    ("conv1_7x7_s2", 3, 64, 7),
    ("conv2_3x3_reduce", 64, 64, 1),
    ("conv2_3x3", 64, 192, 3),
]
# Module, input channels, 1x1, 3x3 reduce, 3x3, double reduce, double 3x3, pool projection.
MODULES = [
    ("3a", 192, 64, 64, 64, 64, 96, 32),
    ("3b", 256, 64, 64, 96, 64, 96, 64),
    ("3c", 320, 0, 128, 160, 64, 96, 0),
    ("4a", 576, 224, 64, 96, 96, 128, 128),
    ("4b", 576, 192, 96, 128, 96, 128, 128),
    ("4c", 576, 160, 128, 160, 128, 160, 128),
    ("4d", 608, 96, 128, 192, 160, 192, 128),
    ("4e", 608, 0, 128, 192, 192, 256, 0),
    ("5a", 1056, 352, 192, 320, 160, 224, 128),
    ("5b", 1024, 352, 192, 320, 192, 224, 128),
]
MEAN = torch.tensor([104.0, 117.0, 128.0])[:, None, None]


def layers() -> list[tuple[str, int, int, int]]:
    found = list(STEM)
    for name, channels, one, reduce, three, double_reduce, double, projection in MODULES:
        found += [
            (f"inception_{name}_3x3_reduce", channels, reduce, 1),
            (f"inception_{name}_3x3", reduce, three, 3),
            (f"inception_{name}_double_3x3_reduce", channels, double_reduce, 1),
            (f"inception_{name}_double_3x3_1", double_reduce, double, 3),
            (f"inception_{name}_double_3x3_2", double, double, 3),
        ]
        if one:
            found.append((f"inception_{name}_1x1", channels, one, 1))
        if projection:
            found.append((f"inception_{name}_pool_proj", channels, projection, 1))
    return found


def published_weights(classes: int = 7) -> dict[str, Tensor]:
    """Random weights in the published layout; some variances are as small as its epsilon."""
    generator = torch.Generator().manual_seed(3)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    state: dict[str, Tensor] = {}
    for name, channels, outputs, kernel in layers():
        scale = (2 / (channels * kernel * kernel)) ** 0.5 / (60 if name == "conv1_7x7_s2" else 1)
        weight = torch.randn(outputs, channels, kernel, kernel, generator=generator)
        state[f"{name}.weight"] = weight * scale
        state[f"{name}.bias"] = uniform(-0.2, 0.2, outputs)
        state[f"{name}_bn.weight"] = uniform(0.5, 1.5, outputs)
        state[f"{name}_bn.bias"] = uniform(-0.3, 0.3, outputs)
        state[f"{name}_bn.running_mean"] = uniform(-0.3, 0.3, outputs)
        variance = uniform(0.4, 2.0, outputs)
        state[f"{name}_bn.running_var"] = variance
        # Channels that hardly vary: here 1e-3 instead of 1e-5 changes the output eightfold.
        state[f"{name}_bn.running_var"][0] = 5e-6
        state[f"{name}_bn.weight"][0] *= 0.003
    state["last_linear.weight"] = torch.randn(classes, 1024, generator=generator) * 0.03
    state["last_linear.bias"] = uniform(-0.2, 0.2, classes)
    return state


def published_forward(state: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """Logits of RGB pixels of 0 to 255, in float64."""
    state = {key: value.double() for key, value in state.items()}

    def unit(maps: Tensor, name: str, stride: int = 1) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        maps = F.conv2d(maps, weight, bias, stride, weight.shape[-1] // 2)
        mean, variance = state[f"{name}_bn.running_mean"], state[f"{name}_bn.running_var"]
        gamma, beta = state[f"{name}_bn.weight"], state[f"{name}_bn.bias"]
        return F.batch_norm(maps, mean, variance, gamma, beta, eps=1e-5).relu()

    maps = unit(pixels.double().flip(1) - MEAN, "conv1_7x7_s2", 2)
    maps = F.max_pool2d(maps, 3, 2, ceil_mode=True)
    maps = unit(unit(maps, "conv2_3x3_reduce"), "conv2_3x3")
    maps = F.max_pool2d(maps, 3, 2, ceil_mode=True)
    for name, _, one, *_, projection in MODULES:
        here = f"inception_{name}_"
        stride = 1 if one else 2
        branches = [unit(maps, here + "1x1")] if one else []
        branches.append(unit(unit(maps, here + "3x3_reduce"), here + "3x3", stride))
        double = unit(unit(maps, here + "double_3x3_reduce"), here + "double_3x3_1")
        branches.append(unit(double, here + "double_3x3_2", stride))
        if not projection:
            branches.append(F.max_pool2d(maps, 3, 2, ceil_mode=True))
        elif name == "5b":
            branches.append(unit(F.max_pool2d(maps, 3, 1, 1), here + "pool_proj"))
        else:
            pooled = F.avg_pool2d(maps, 3, 1, 1, count_include_pad=True)
            branches.append(unit(pooled, here + "pool_proj"))
        maps = torch.cat(branches, 1)
    return F.linear(maps.mean((2, 3)), state["last_linear.weight"], state["last_linear.bias"])


def pixels(count: int = 2, size: int = 96) -> Tensor:
    return torch.randint(
        0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(4)
    ).float()


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return published_weights()


def test_the_imported_network_computes_what_the_published_one_does(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    save_file(weights, tmp_path / "published.safetensors")
    network = import_weights(tmp_path / "published.safetensors")
    assert network.num_classes == 7 and not network.training
    # 11,295,240 parameters at 1000 classes; a class has 1024 weights and a bias.
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters == 11_295_240 - 993 * 1025
    images = pixels()
    with torch.no_grad():
        logits = network(images / 127.5 - 1)
    expected = published_forward(weights, images)
    assert expected.std() > 0.01
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-4)


def test_pickles_of_tensors_are_read_alike(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    old = {key: value[None] if "_bn." in key else value for key, value in weights.items()}
    counted = weights | {"conv1_7x7_s2_bn.num_batches_tracked": torch.tensor(5)}
    for name, state in (
        ("plain.pth", weights),
        ("old.pth", old),
        ("counted.pth", counted),
        ("wrapped.pth", {"state_dict": weights, "epoch": 3}),
    ):
        torch.save(state, tmp_path / name)
        imported = import_weights(tmp_path / name).state_dict()
        assert torch.equal(imported["classifier.weight"], weights["last_linear.weight"]), name


def test_what_holds_no_plain_tensors_is_refused_and_nothing_is_run(
    tmp_path: Path, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": weights, "extra": Malicious()}, "zip.pth")
    Path("pickle.pth").write_bytes(pickle.dumps(Malicious()))
    torch.save(torch.nn.Linear(2, 2), "module.pth")
    Path("text.pth").write_text("hello")
    Path("cut.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    torch.save([torch.zeros(1)], "list.pth")
    for name, words in (
        ("zip.pth", "could run any code"),
        ("pickle.pth", "could run any code"),
        ("module.pth", "could run any code"),
        ("text.pth", "does not load as plain tensors"),
        ("cut.safetensors", "cannot be read as safetensors"),
        ("list.pth", "no network's parameters"),
        ("missing.pth", "no such file"),
    ):
        text = refusal(import_weights, name)
        assert text.startswith(f"{name}: ") and words in text
    assert not Path("harmed").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"last_linear.weight": None}, "no last_linear.weight"),
        (
            {"inception_4c_3x3.bias": None, "conv2_3x3_bn.weight": None},
            "2 missing: conv2_3x3_bn.weight, inception_4c_3x3.bias",
        ),
        ({"conv2_3x3.bias": torch.full((192,), torch.inf)}, "conv2_3x3.bias holds values"),
        ({"conv2_3x3_bn.running_var": torch.full((192,), -1.0)}, "negative variances"),
    ],
)
def test_weights_of_another_layout_are_refused(
    tmp_path: Path, weights: dict[str, Tensor], change: dict[str, Tensor | None], words: str
) -> None:
    changed = {key: value for key, value in (weights | change).items() if value is not None}
    save_file(changed, tmp_path / "w.safetensors")
    assert words in refusal(import_weights, tmp_path / "w.safetensors")


def test_the_command_makes_a_run_folder_that_evaluate_takes(
    tmp_path: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(published_weights(3), "published.safetensors")
    classes = f"classes={images / 'val'}"
    assert dispatch(["import-weights", "published.safetensors", classes]) == 0
    assert "3 classes, 10,273,315 parameters" in capsys.readouterr().out
    folder = Path("outputs/published")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["recipe"], summary["status"], summary["step"]) == ("published", "finished", 0)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["imported"]["file"] == "published.safetensors"
    loaded = checkpoint.load_network(folder / "checkpoints" / "best.pt")
    assert loaded.classes == ("n0000", "n0001", "n0002")
    data = ["data=folder", f"data.root={images}", "data.workers=0", "machine.device=cpu"]
    assert dispatch(["evaluate", f"run={folder}", *data]) == 0
    out = capsys.readouterr().out
    assert "15 images" in out and "statistics: running" in out
    assert (folder / "evaluation" / "single-running.npz").is_file()
    given = ["evaluate", f"run={folder}", *data, "statistics=population"]
    assert "population needs the order" in refusal(dispatch, given)

    names = tmp_path / "names.txt"
    names.write_text("n1 one\nn2 two\n")
    for arguments, words in (
        (["published.safetensors"], "holds a run already"),
        (["published.safetensors", f"classes={names}", "output=other"], "2 names, 2 of them"),
        ([], "file: not set"),
        (["a", "b"], "takes one file"),
        (["nowhere.pth", "output=other"], "no such file"),
    ):
        assert words in refusal(dispatch, ["import-weights", *arguments])
        assert not Path("other").exists()
