"""What re-encoding costs, measured on drawn pictures: the tables, and which way the numbers go."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from bn_inception.errors import UserError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "reencoding_cost.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reencoding_cost", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reencoding_cost"] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures with detail: one of ImageNet's usual size, one that every N leaves alone."""
    folder = tmp_path_factory.mktemp("photographs")
    for number, size in enumerate(((500, 375), (240, 250))):
        noise = np.random.default_rng(number).normal(128, 30, (size[1], size[0], 3))
        image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
        (folder / "in").mkdir(exist_ok=True)
        image.save(folder / "in" / f"{number}.JPEG", quality=95)
    return folder


def test_the_tables_and_their_rows(
    script: ModuleType, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "cost.json"
    script.measure([str(photographs), f"output={output}", "boxes=6"])
    shown = capsys.readouterr().out
    assert "2 photographs, 6 training boxes each" in shown
    written = json.loads(output.read_text())
    assert written["photographs"] == 2 and written["boxes"] == 6
    sizes = {row["stored"]: row for row in written["rows"] if "bytes_ratio" in row}
    assert len(sizes) == 1 + 6 * 3
    assert "\n| N=352 q=90 | 0.50 |" in shown
    assert sizes["original"]["bytes_ratio"] == sizes["original"]["decode_ratio"] == 1
    assert sizes["N=352 q=90"]["kept"] == 0.5 and sizes["N=384 q=90"]["kept"] == 1
    assert sizes["N=384 q=90"]["bytes_ratio"] == 1
    of_352 = [sizes[f"N=352 q={quality}"]["bytes_ratio"] for quality in (85, 90, 95)]
    assert of_352 == sorted(of_352) and of_352[-1] < 1
    assert sizes["N=256 q=90"]["enlarged"] > sizes["original"]["enlarged"]
    assert all(row["decode_ms"] > 0 for row in sizes.values())

    levels = {row["stored"]: row for row in written["rows"] if row.get("measure") == "levels"}
    decibels = {row["stored"]: row for row in written["rows"] if row.get("measure") == "PSNR"}
    for column in ("train", "single_256", "gn_352"):
        by_side = [levels[f"N={side} q=90"][column] for side in (256, 320, 352, 384)]
        assert by_side == sorted(by_side, reverse=True) and by_side[-1] == 0 < by_side[-2]
        by_quality = [levels[f"N=256 q={quality}"][column] for quality in (85, 90, 95)]
        assert by_quality == sorted(by_quality, reverse=True)
        by_side = [decibels[f"N={side} q=90"][column] for side in (256, 320, 352)]
        assert by_side == sorted(by_side)
        assert decibels["N=384 q=90"][column] is None  # equal pixels
    assert levels["box for bilinear"]["train"] > levels["bicubic for bilinear"]["train"] > 0
    assert levels["box for bilinear"]["gn_352"] is None
    filters = {row["stored"]: row for row in written["rows"] if "nearest" in row}
    assert filters["N=256 q=90"]["nearest"] > filters["N=256 q=90"]["bilinear"] > 0


def test_what_cannot_be_measured_is_named(script: ModuleType, tmp_path: Path) -> None:
    for arguments, named in (
        ([], "give one folder"),
        ([str(tmp_path / "no")], "give one folder"),
        ([str(tmp_path)], "holds no images"),
        ([str(tmp_path), "boxes=0"], "boxes: '0' is not 1 or more"),
        ([str(tmp_path), "draws=3"], "draws=3: unknown"),
    ):
        with pytest.raises(UserError, match=named):
            script.measure(arguments)
