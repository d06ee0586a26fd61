"""docs/notebook.ipynb: its cells run, one after the other, and it carries no outputs."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch
from mnist.test_mnist import mnist_files as mnist_files
from small_runs import Runs

from bn_inception.network.normalization import running_statistics

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "notebook.ipynb"


def cells():
    read: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return [cell for cell in read if cell["cell_type"] == "code"]


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_its_cells_run(tmp_path, images, mnist_files, capsys):
    runs = Runs(tmp_path, images)
    for name, recipe in (("plain", "inception"), ("bn", "bn_x5")):
        assert runs.train(name, f"recipe={recipe}") == 0
    capsys.readouterr()
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells())
    sizes, *rest = ["".join(cell["source"]) for cell in cells()]
    # The first cell has the sizes, and nothing else; these take their places.
    names: dict[str, Any] = {}
    exec(sizes, names)
    small = {
        "MNIST": str(mnist_files), "STEPS": 20, "EVERY": 10,
        "PLAIN": str(runs.folder("plain")), "BN": str(runs.folder("bn")),
    }  # fmt: skip
    assert small.keys() <= names.keys()
    names |= small
    with matplotlib.rc_context({"backend": "agg"}):
        for source in rest:
            exec(compile(source, str(NOTEBOOK), "exec"), names)
    assert [len(curve.evaluations) for curve in names["curves"]] == [3, 3]
    # What the notebook calls population and running are the two that the run judged and kept.
    state = runs.state("bn", "best.pt")
    name = f"{names['LAYER']}.running_mean"
    assert name in running_statistics(names["checkpoint"].network)
    assert torch.equal(names["population"][name], state["network"][name])
    assert torch.equal(names["running"][name], state["running_statistics"][name])
    assert not torch.equal(names["population"][name], names["running"][name])
    printed = capsys.readouterr().out
    assert "apart" in printed and "BN-x5" in printed
