"""The layers of docs/architecture.md, read from the import statements."""

import ast
from pathlib import Path

import pytest

import bn_inception

PACKAGE = Path(bn_inception.__file__).parent
LAYERS = {
    "drawing": 0,
    "errors": 0,
    "fields": 0,
    "files": 0,
    "quoting": 0,
    "paper": 0,
    "network": 1,
    "data": 1,
    "record": 1,
    "evaluation": 2,
    "training": 3,
    "report": 4,
    "benchmark": 4,
    "mnist": 4,
    "config": 5,
    "cli": 6,
}
# Of equal height, and strangers to each other.
SEPARATE = ({"network", "data", "record"}, {"report", "benchmark", "mnist"})
TOP = {"__init__", "__main__"}
WITHOUT_TORCH = {"drawing", "errors", "fields", "files", "quoting", "paper", "record", "report"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def layer_name(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_folder_has_a_layer() -> None:
    assert {layer_name(path) for path in FILES} <= LAYERS.keys() | TOP


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    here = layer_name(path)
    if here in TOP:
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "bn_inception" or len(parts) < 2 or parts[1] not in LAYERS:
            continue
        there = parts[1]
        assert LAYERS[there] <= LAYERS[here], f"{here} imports {name}, from a higher layer"
        strangers = any({here, there} <= group for group in SEPARATE)
        assert here == there or not strangers, f"{here} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_config_and_cli_know_hydra(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path)}
    if layer_name(path) not in {"config", "cli"}:
        assert not roots & {"hydra", "omegaconf", "yaml"}
    if layer_name(path) in WITHOUT_TORCH:
        assert "torch" not in roots
