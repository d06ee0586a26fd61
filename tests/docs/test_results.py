"""results/: what is written there follows from the records there."""

import json
from pathlib import Path
from typing import Any

import pytest

from bn_inception.cli.main import dispatch

ROOT = Path(__file__).resolve().parents[2]
RECORDS = Path("results/tiny_imagenet_100")


def numbers(value: Any) -> list[float]:
    """Every number of a JSON value, in its order."""
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in numbers(value[key])]
    if isinstance(value, list):
        return [number for entry in value for number in numbers(entry)]
    return [float(value)] if isinstance(value, int | float) else []


def test_tables_and_verdicts_follow_from_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `make results` makes them; numbers but for the rounding of another processor."""
    monkeypatch.chdir(ROOT)
    runs = sorted(str(folder) for folder in RECORDS.glob("runs/*"))
    edge = "experiments/stability_edge/cpu.json"
    assert dispatch(["compare", *runs, f"output={tmp_path}"]) == 0
    assert dispatch(["claims", *runs, edge, f"output={tmp_path}"]) == 0
    again, committed = (
        {
            name: json.loads((folder / f"{name}.json").read_text())
            for name in ("comparison", "claims")
        }
        for folder in (tmp_path, ROOT / RECORDS)
    )
    assert numbers(again["comparison"]) == pytest.approx(numbers(committed["comparison"]), rel=1e-6)
    decisions = [
        [(verdict["number"], verdict["decision"]) for verdict in found["claims"]["verdicts"]]
        for found in (again, committed)
    ]
    assert decisions[0] == decisions[1] and len(decisions[0]) == 9
    # What README prints of them.
    readme = (ROOT / "README.md").read_text("utf-8")
    for row in committed["comparison"]["rows"]:
        assert f"| {100 * row['plateau']['value']:.1f} %" in readme
