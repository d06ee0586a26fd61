"""Stored loss curves: a refactor proves itself by reproducing them.

With the torch and the kind of CPU that wrote the file all losses are compared; on that very machine
they are equal to the last bit. Elsewhere kernels sum in another order, and so small a network with
BN makes per cents of that within five updates: there the first loss is compared, and the others
must be finite. A change that is meant to alter the curves says so in its commit and writes them
anew:

    OMP_NUM_THREADS=1 python tests/training/test_loss_curve.py
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # also when run as a script

from small_runs import TINY, write_images

from bn_inception.cli.main import dispatch

STORED = Path(__file__).with_name("loss_curves.json")
RECIPES = ("inception", "bn_baseline", "bn_x30", "bn_x5_sigmoid")
TOLERANCE, FIRST_TOLERANCE = 2e-3, 1e-4
MADE_WITH = {
    "torch": torch.__version__.partition("+")[0],
    "cpu": torch.backends.cpu.get_cpu_capability(),
}


def curve(recipe: str, images: Path, root: Path) -> list[float]:
    """The training losses of a short run, then its validation losses."""
    given = [f"data.root={images}", f"run.root={root}", f"run.name={recipe}", "train.log_every=1"]
    given.append("data.backend=pillow")  # the reference; the curves are about training, not reading
    assert dispatch(["train", f"recipe={recipe}", *TINY, *given]) == 0
    lines = (root / recipe / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [r["loss"] for kind in ("train", "validation") for r in records if r["kind"] == kind]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_losses_are_the_stored_ones(recipe: str, images: Path, tmp_path: Path) -> None:
    file = json.loads(STORED.read_text())
    stored, found = file[recipe], curve(recipe, images, tmp_path)
    assert len(found) == len(stored)
    assert found[0] == pytest.approx(stored[0], rel=FIRST_TOLERANCE)
    assert all(map(math.isfinite, found))
    if file["made_with"] == MADE_WITH:
        assert found == pytest.approx(stored, rel=TOLERANCE)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = write_images(root / "images")
        curves = {recipe: curve(recipe, images, root / "outputs") for recipe in RECIPES}
    STORED.write_text(json.dumps({"made_with": MADE_WITH, **curves}, indent=1) + "\n")
