"""results/: what is written there follows from the records there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDS = Path("results", "tiny_imagenet_100")


def numbers(value):
    """Every number of a JSON value, in its order."""
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in numbers(value[key])]
    if isinstance(value, list):
        return [number for entry in value for number in numbers(entry)]
    return [float(value)] if isinstance(value, int | float) else []


def test_tables_and_verdicts_follow_from_the_records(tmp_path):
    """As `make results` makes them; numbers but for the rounding of another processor."""
    script = ["bash", str(ROOT / "scripts" / "results.sh"), str(tmp_path)]
    subprocess.run(script, env={**os.environ, "PYTHON": sys.executable}, check=True)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.json"))
    assert {path.name for path in written} >= {"comparison.json", "claims.json", "rate.json"}
    for path in written:
        again, committed = (
            json.loads((folder / path).read_text()) for folder in (tmp_path, ROOT / "results")
        )
        if path.name == "claims.json":
            again, committed = (
                [(verdict["number"], verdict["decision"]) for verdict in found["verdicts"]]
                for found in (again, committed)
            )
            assert again == committed and len(again) == 9
        else:
            assert numbers(again) == pytest.approx(numbers(committed), rel=1e-6)


def test_readme_prints_what_was_found():
    committed = json.loads((ROOT / RECORDS / "comparison.json").read_text())
    readme = (ROOT / "README.md").read_text("utf-8")
    for row in (row for row in committed["rows"] if row["kind"] == "recipe"):
        assert f"| {100 * row['plateau']['value']:.1f} %" in readme
