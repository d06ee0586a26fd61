import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib
import pytest
from PIL import Image

from bn_inception.record.metrics import ProbeRecord
from bn_inception.report.comparison import compare
from bn_inception.report.figures import figure2, inputs_of_a_layer
from bn_inception.report.page import write_report
from bn_inception.report.runs import read_run


def labels(drawing):
    """Texts, which matplotlib writes as comments before their outlines."""
    lines = drawing.svg.decode().split("<!-- ")[1:]
    return [line.split(" -->")[0] for line in lines]


def test_a_recipe_has_one_colour_and_a_label_of_its_own(figure3_runs):
    (drawing,) = figure2(compare(figure3_runs))
    ET.fromstring(drawing.svg)
    assert b"<dc:date>" not in drawing.svg and drawing.element.startswith("<svg")
    said = "\n".join(labels(drawing))
    for words in ("Inception", "BN-x5", "target at 140", "target 24.0 %", "diverged at 1,234"):
        assert words in said
    # Labels stand beside the ends, the lowest curve's first; there is no legend.
    ends = ("diverged at", "BN-x5-Sigmoid", "target 24.0 %", "BN-x30")
    assert sorted(ends, key=said.index) == list(ends)
    assert "did not start learning" in said and b"legend" not in drawing.svg
    with Image.open(io.BytesIO(drawing.png)) as image:
        assert image.width == 1200
        # Black, blue, green, vermilion, purple, orange and sky blue curves on white.
        colours = {colour for _, colour in image.convert("RGB").getcolors(100_000)}
    for colour in ("#000000", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9"):
        assert tuple(bytes.fromhex(colour[1:])) in colours


def test_changes_and_members_have_figures_of_their_own(make_run):
    seeds = [make_run(f"p{n}", "inception", [0.1, 0.2 + n / 50, 0.3], seed=n) for n in range(3)]
    fast, other = (make_run(name, "bn_x5", [0.2, 0.3]) for name in ("fast", "other"))
    changed = replace(other, overrides=("network.dropout=0.4",))
    member = make_run("m", "ensemble_1", [0.2, 0.3], seed=1)
    drawings = figure2(compare([*seeds, fast, changed, member]), axis="log")
    names = ["figure2", "figure2-changes", "figure2-ensemble"]
    assert [drawing.name for drawing in drawings] == names
    first, changes, members = map(labels, drawings)
    assert "Inception, 3 seeds" in first and "dropout" not in "".join(first)
    # Both are BN-x5; the label of the second names what differs.
    assert "BN-x5" in changes and "BN-x5 network.dropout=0.4" in changes
    assert "ensemble_1" in "".join(members)


@pytest.mark.parametrize("axis", ["linear", "log"])
def test_equal_runs_give_equal_bytes_whatever_the_users_style(figure3_runs, monkeypatch, axis):
    comparison = compare(figure3_runs)
    first = figure2(comparison, axis)
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 20.0)
    assert figure2(comparison, axis) == first
    assert matplotlib.rcParams["font.size"] == 20.0


def test_labels_stand_at_the_ends_and_a_figure_is_as_high_as_forty_of_them(make_run):
    plain, fast = make_run("p", "inception", [0.1, 0.3]), make_run("f", "bn_x5", [0.4])
    (drawing,) = figure2(compare([plain, fast]))
    heights = re.findall(r"<!-- (\S+) -->\s*<g [^>]*translate\(\S+ (\S+)\)", drawing.svg.decode())
    # Of 331 points; 40 % and 30 % are near the top of an axis that begins at 0.
    assert 0 < float(dict(heights)["BN-x5"]) < float(dict(heights)["Inception"]) < 110
    odd = [replace(fast, overrides=(f"network.width={n}" + "$x$" * n,)) for n in range(40)]
    _, changes = figure2(compare([plain, fast, *odd]))
    with Image.open(io.BytesIO(changes.png)) as image:
        assert image.height > 1500


def look_into(run, *layers, steps=(1, 100, 200), value=1.0):
    """The run again, with looks into layers."""
    with (run.path / "metrics.jsonl").open("a") as file:
        for step in steps:
            for layer in layers:
                record = ProbeRecord(step, float(step), layer, *[value * n for n in range(12)])
                file.write(json.dumps({"kind": "probe", **vars(record)}) + "\n")
    return read_run(run.path)


def test_one_layer_of_the_plain_network_beside_that_of_the_bn_network(make_run, tmp_path):
    plain = look_into(make_run("plain", "inception", [0.1]), "conv1", "5b.conv_3x3", "5b.x")
    other = make_run("other", "bn_baseline", [0.2])
    for without in (other, look_into(other, "4a.conv_3x3")):
        assert inputs_of_a_layer(compare([plain, without])) is None
    # A diverging run is drawn as far as it can be.
    seed = look_into(make_run("seed", "bn_baseline", [0.2], seed=1), "conv1", "5b.conv_3x3")
    runs = [plain, look_into(seed, "5b.conv_3x3", steps=(300,), value=1e300)]
    drawing = inputs_of_a_layer(compare(runs))
    said = labels(drawing)
    assert {"Inception", "BN-Baseline"} <= set(said)
    assert any("5b.conv_3x3" in words for words in said)
    written = write_report(compare(runs), runs, tmp_path / "report")
    assert {"probe.png", "probe.svg"} <= {path.name for path in written}
    assert drawing.title in (tmp_path / "report" / "report.html").read_text()


def test_a_layer_with_a_hostile_name_is_drawn_as_text(make_run):
    name = "$\\frac{" + "\x1b[31m<script>" + "x" * 10_000
    recipes = ("inception", "bn_baseline")
    runs = [look_into(make_run(recipe, recipe, [0.1]), name) for recipe in recipes]
    drawing = inputs_of_a_layer(compare(runs))
    ET.fromstring(drawing.svg)
    assert "\x1b" not in drawing.title and len(drawing.title) < 100
