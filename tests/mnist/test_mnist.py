"""BN Figure 1: the network of section 4.1, its training, its figure and its command."""

import gzip
import json
import struct
import urllib.error

import numpy as np
import pytest
import torch

from bn_inception.cli.main import dispatch
from bn_inception.errors import UserError
from bn_inception.mnist import (
    NETWORKS,
    Curve,
    Digits,
    Evaluation,
    MnistSettings,
    figure1,
    read_digits,
    sigmoid_network,
    train,
)

SETTINGS = MnistSettings(
    learning_rate=0.5, deviation=0.1, steps=40, evaluate_every=10, population_batches=3
)


def write_idx(path, values):
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header + values.tobytes())


@pytest.fixture(scope="module")
def mnist_files(tmp_path_factory):
    """Four files of MNIST's form and counts; a digit's label is the number of its grey rows."""
    folder = tmp_path_factory.mktemp("mnist")
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.zeros((count, 28, 28), np.uint8)
        images[np.arange(28)[None] < labels[:, None]] = 128
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


@pytest.fixture(scope="module")
def digits(mnist_files):
    """A few of each of the three sets."""
    return tuple(Digits(*(part[:600] for part in given)) for given in read_digits(mnist_files))


def test_the_network_is_section_4_1s():
    """Three hidden layers of 100 sigmoids; BN has gamma and beta where the other has a bias."""
    plain, bn = (sigmoid_network(n, 0.1, torch.Generator().manual_seed(3)) for n in NETWORKS)
    weights = [784 * 100, 100 * 100, 100 * 100, 100 * 10 + 10]
    assert sum(p.numel() for p in plain.parameters()) == sum(weights) + 3 * 100
    assert sum(p.numel() for p in bn.parameters()) == sum(weights) + 3 * 200
    assert sum(isinstance(layer, torch.nn.Sigmoid) for layer in bn) == 3
    # The same start: what differs later is normalization's doing.
    one, other = ([m.weight for m in n if isinstance(m, torch.nn.Linear)] for n in (plain, bn))
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("network", NETWORKS)
def test_it_learns_and_a_seed_repeats_it(network, digits):
    curve = train(network, SETTINGS, digits)
    assert [evaluation.step for evaluation in curve.evaluations] == [0, 10, 20, 30, 40]
    assert train(network, SETTINGS, digits) == curve
    if network == "bn":
        assert curve.evaluations[-1].test_accuracy > 0.3


def test_percentiles_are_of_the_normalized_input(digits):
    """At the start gamma is 1 and beta 0: BN's output has about unit deviation, the plain not."""
    plain, bn = (train(n, SETTINGS, digits).evaluations[0].percentiles for n in NETWORKS)
    assert 1.8 < bn[2] - bn[0] < 2.8  # of a Gaussian 2.07, of equally likely values 2.42
    assert plain[2] - plain[0] < 0.2
    assert list(bn) == sorted(bn)


def test_the_command_writes_figure_and_numbers(tmp_path, mnist_files, capsys):
    arguments = ["steps=20", "evaluate_every=10", "seeds=[0,1]", f"output={tmp_path}"]
    assert dispatch(["mnist", f"root={mnist_files}", *arguments]) == 0
    numbers = json.loads((tmp_path / "figure1.json").read_text())
    assert [(row["network"], row["settings"]["seed"]) for row in numbers["curves"]] == [
        ("plain", 0), ("bn", 0), ("plain", 1), ("bn", 1),
    ]  # fmt: skip
    assert "bn, seed 1  step 0/20" in capsys.readouterr().out
    # The same curves give the same bytes.
    curves = [
        Curve(row["network"], SETTINGS,
              tuple(Evaluation(**evaluation) for evaluation in row["evaluations"]))
        for row in numbers["curves"]
    ]  # fmt: skip
    written = {path: path.read_bytes() for path in tmp_path.glob("figure1.[ps]*")}
    assert len(written) == 2
    assert {path: path.read_bytes() for path in figure1(curves, tmp_path)} == written
    # Nothing was written beside the files given.
    assert sorted(path.suffix for path in mnist_files.iterdir()) == [".gz"] * 4


def test_digits_are_binary_and_three_sets_apart(mnist_files):
    """Grey 128 is 1; the last 10,000 training images are held out."""
    training, validation, test = read_digits(mnist_files)
    assert [len(part.labels) for part in (training, validation, test)] == [50_000, 10_000, 10_000]
    for part in (training, validation, test):
        assert set(part.images.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(part.images.sum(1), 28.0 * part.labels)
    assert training.images.data_ptr() + training.images.nbytes == validation.images.data_ptr()


def test_without_network_or_with_damaged_files_it_says_what_to_give(
    tmp_path, mnist_files, monkeypatch
):
    def no_network(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    said = r"root: MNIST cannot .* give root=FOLDER that holds train"
    with pytest.raises(UserError, match=said):
        read_digits(tmp_path)
    for path in mnist_files.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=said):
        read_digits(tmp_path)


@pytest.mark.parametrize(
    "given", ["seeds=[]", "seeds=[1,1]", "steps=0", "deviation.bn=-1", "learning_rate.plain=.inf"]
)
def test_impossible_values_are_refused(given):
    with pytest.raises(UserError, match=given.partition("=")[0]):
        dispatch(["mnist", given])
