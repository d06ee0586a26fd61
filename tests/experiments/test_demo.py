"""`experiments/demo.py`: the sentence that `make demo` ends with, and the table of seeds."""

from pathlib import Path

import demo
import pytest
from report.conftest import write_run

from bn_inception.config import compose, write_yaml

ROOT = Path(demo.__file__).parents[1]
PLAIN = [0.25] * 10 + [0.9] * 21
FAST = [0.25, 0.95, 0.95, 0.95, 0.95, 0.95]


def write(root, recipe, curve, seed=0):
    """A run at scale=demo, evaluated every 84 steps; its length is the curve's."""
    given = [f"recipe={recipe}", "scale=demo", f"run.seed={seed}"]
    about = {"scale": "demo", "seed": seed, "data": "synthetic", "classes": 4, "count": 400}
    about |= {"planned_steps": 84 * len(curve), "config": write_yaml(compose("train", given))}
    return write_run(demo.folder(root, recipe, seed), recipe, curve, every=84, **about)


@pytest.mark.parametrize(
    ("plain", "fast", "expected"),
    [
        (PLAIN, FAST, "BN-x5 reached plain Inception's plateau (90.0 %, less a point) at step 161, "
         "plain Inception at step 923: 17.4 % of the steps."),
        (PLAIN, [0.5] * 6, "BN-x5 did not reach plain Inception's plateau of 90.0 % less a point: "
         "it ended at 50.0 %."),
        (PLAIN[:20], FAST, "These runs show nothing: inception-demo-synthetic-seed0 is not a "
         "whole run."),
        (PLAIN, FAST[:5], "These runs show nothing: bn_x5-demo-synthetic-seed0 is not a whole "
         "run."),
        ([0.25] * 25 + [0.9] * 6, FAST, "These runs show nothing: the plain network still climbs"),
        ([0.25] * 31, FAST, "These runs show nothing: the target 24.0 % is at chance"),
    ],
)  # fmt: skip
def test_the_sentence_says_what_was_seen(tmp_path, plain, fast, expected):
    folders = [write(tmp_path, "bn_x5", fast), write(tmp_path, "inception", plain)]
    said = demo.sentence(demo.look(folders))
    assert said.startswith(expected)
    assert said.count(".\n") == 0 and said.endswith(("steps.", "%.", "run.", "longer.", ")."))


def test_the_document_shows_the_table_that_was_made():
    assert (ROOT / "experiments/demo/seeds.md").read_text() in (ROOT / "docs/demo.md").read_text()
