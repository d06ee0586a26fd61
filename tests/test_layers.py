"""The layers of docs/architecture.md, read from the import statements."""

import ast
from pathlib import Path

import pytest

import bn_inception

PACKAGE = Path(bn_inception.__file__).parent
GROUND = {"drawing", "errors", "fields", "files", "quoting", "table", "paper"}
# Of equal height, and strangers to each other.
SEPARATE = ({"network", "data", "record"}, {"report", "benchmark", "mnist"})
LAYERS = (GROUND, SEPARATE[0], {"evaluation"}, {"training"}, SEPARATE[1], {"config"}, {"cli"})
HEIGHTS = {name: height for height, layer in enumerate(LAYERS) for name in layer}
TOP = {"__init__", "__main__"}
WITHOUT_TORCH = GROUND | {"record", "report"}
FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def imports(path):
    """Every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer_name(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_folder_has_a_layer():
    assert {layer_name(path) for path in FILES} <= HEIGHTS.keys() | TOP


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards_and_only_config_and_cli_know_hydra(path):
    here, found = layer_name(path), imports(path)
    roots = {name.split(".")[0] for name in found}
    if here not in {"config", "cli"}:
        assert not roots & {"hydra", "omegaconf", "yaml"}
    if here in WITHOUT_TORCH:
        assert "torch" not in roots
    for name in found if here not in TOP else ():
        package, _, inner = name.partition(".")
        there = inner.partition(".")[0]
        if package == "bn_inception" and there in HEIGHTS:
            assert HEIGHTS[there] <= HEIGHTS[here], f"{here} imports {name}, from a higher layer"
            strangers = any({here, there} <= group for group in SEPARATE)
            assert here == there or not strangers, f"{here} imports {name}"
