"""Recipes, scales and data sets of one's own, which lie in no folder of this package."""

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from bn_inception.errors import UserError
from bn_inception.files import configs_folder, first_line


def register_files(overrides: Sequence[str]) -> None:
    """Show Hydra the files that are given in place of a group's choice: `recipe=mine/wide.yaml`.

    Raises:
        UserError: one is missing, or is no YAML mapping; or a folder given with `--config-dir` has
            a file of the package's name, which would never be read.
    """
    groups = {path.name for path in configs_folder().iterdir() if path.is_dir()}
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key in groups:
            for name in value.split(","):
                if name.endswith(".yaml"):
                    _register(key, name)
        elif key == "hydra.searchpath":
            for folder in re.findall(r"file://([^],'\"]+)", value):
                _refuse_shadowed(Path(folder))


def search_path(folders: Sequence[str]) -> str:
    """The override of Hydra's that stands for `--config-dir FOLDER`.

    Raises:
        UserError: there is no such folder.
    """
    paths = [Path(folder).expanduser().resolve() for folder in folders]
    for path in paths:
        if not path.is_dir():
            raise UserError(f"--config-dir: {path}: no such folder; give one that holds recipe/")
    addresses = (f"'file://{path}'" for path in paths)
    return f"hydra.searchpath=[{','.join(addresses)}]"


def _register(group: str, name: str) -> None:
    try:
        node = OmegaConf.load(name)
    except Exception as error:  # yaml's, OmegaConf's, OSError, ValueError, ...
        raise UserError(f"{group}={name}: cannot be read ({first_line(error)})") from error
    if not isinstance(node, DictConfig):
        raise UserError(f"{group}={name}: holds no keys; write it as the files of configs/{group}/")
    package = "_global_" if group == "recipe" else group
    # `defaults: [bn_x5]` is beside the package's own files, not beside this one.
    at = "_global_" if group == "recipe" else "_here_"
    node["defaults"] = [
        f"/{group}/{entry}@{at}" if isinstance(entry, str) and re.match(r"[^_/]", entry) else entry
        for entry in node.get("defaults", [])
    ]
    folder, _, file = name.rpartition("/")
    ConfigStore.instance().store(
        group=re.sub("/+", "/", f"{group}/{folder}").rstrip("/"),
        name=file,
        node=node,
        package=package,
    )


def _refuse_shadowed(folder: Path) -> None:
    for path in sorted(folder.rglob("*.yaml")):
        name = path.relative_to(folder)
        if (configs_folder() / name).is_file():
            raise UserError(
                f"--config-dir: {path} has the name of a file of the package, which is read "
                "instead; call it otherwise"
            )
