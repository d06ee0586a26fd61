"""Run folders compared, bit for bit, by the files that the documentation names."""

import json
from pathlib import Path
from typing import Any

import torch

from bn_inception.errors import UserError
from bn_inception.network import checkpoint


def differences(whole: Path, folder: Path, without: tuple[str, ...] = ()) -> list[str]:
    """In which respects a run differs from the undisturbed one; speeds and times are left out.

    Args:
        without: names of files that are not compared.
    """
    found = []
    for name in {"last.pt", "best.pt"} - set(without):
        try:
            one, other = (checkpoint.load(run / "checkpoints" / name) for run in (whole, folder))
        except UserError as error:
            found.append(str(error))
            continue
        for key in ("network", "optimizer", "running_statistics", "step", "interval"):
            if not _same(one.get(key), other.get(key)):
                found.append(f"{name}: another {key}")
    if _records(whole) != _records(folder):
        found.append("metrics.jsonl: other records")
    first, second = (_object(run / "summary.json") for run in (whole, folder))
    found += [
        f"summary.json: {key} is {second.get(key)!r}, not {first.get(key)!r}"
        for key in ("status", "step", "images_seen", "best", "milestones", "started_learning")
        if first.get(key) != second.get(key)
    ]
    return found


def recorded_step(folder: Path) -> int:
    """Of the last training record in `metrics.jsonl`; 0 where there is none."""
    steps = [record["step"] for record in _records(folder) if record["kind"] == "train"]
    return max(steps, default=0)


def resumed_at(folder: Path) -> int:
    """The step that the run says it was continued from last; 0 where it began anew."""
    resumed = _object(folder / "environment.json").get("resumed", [])
    return int(resumed[-1]["step"]) if resumed else 0


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, by its path; of the log, the whole lines, half a one being none."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    found = {str(path): path.read_bytes() for path in files}
    log = str(folder / "metrics.jsonl")
    return found | {log: found.get(log, b"").rpartition(b"\n")[0]}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _records(folder: Path) -> list[dict[str, Any]]:
    try:
        lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    whole = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [{**record, "images_per_second": None} for record in whole]


def _object(path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return loaded
