"""Hydra's composition, with one clear line where something does not fit."""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bn_inception.errors import UserError, close_matches
from bn_inception.files import choices_of, configs_folder, first_line
from bn_inception.paper.results import MINI_BATCH

Config = dict[str, Any]
HABITS = {
    "lr": ("optimizer.learning_rate", "{}"),
    "wd": ("optimizer.weight_decay", "{}"),
    "epochs": ("train.steps", "'{} epochs'"),
    "iterations": ("train.steps", "{}"),
    "batch_size": ("batch.images", "{}"),
    "bs": ("batch.images", "{}"),
    "num_workers": ("data.workers", "{}"),
    "amp": ("machine.precision", "bf16"),
}
"""What other programs call our keys; close spellings are found without."""


def _compressed(duration: float, compression: float, batch: int) -> float | int:
    """Divide a duration in the paper's steps of 32 images by a scale's factor."""
    if not (compression > 0 and batch > 0):
        return duration  # the check against the schema, which follows, names the culprit
    steps = duration * MINI_BATCH / (compression * batch)
    return int(steps) if steps == int(steps) else steps


def _scaled_rate(rate: float, *factors: float) -> float:
    """Multiply a recipe's rate by the scale's factor and the mini-batch's."""
    if not all(factor > 0 for factor in factors):
        return rate  # the check against the schema, which follows, names the culprit
    return math.prod(factors, start=rate)


def compose(name: str, overrides: Sequence[str]) -> Config:
    """Compose `configs/<name>.yaml` with `key=value` overrides and resolve it."""
    OmegaConf.register_new_resolver("compressed", _compressed, replace=True)
    OmegaConf.register_new_resolver("scaled_rate", _scaled_rate, replace=True)
    for override in overrides:
        if override.startswith("-"):
            raise UserError(f"{override}: unknown option; see bn-inception {_words(name)} --help")
    register_files(overrides)
    if GlobalHydra.instance().is_initialized():
        GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(configs_folder())):
        try:
            composed = hydra_compose(config_name=name, overrides=list(map(quoted, overrides)))
        except (HydraException, OmegaConfBaseException) as error:
            raise explained(error, name, overrides) from error
        except (ValueError, TypeError) as error:
            # Hydra's own, where a group is given something that is no name: null, [1].
            raise UserError(f"configuration: {first_line(error)}; give a group's name") from error
        try:
            # The unset "???" are left to the check against the schema, which names them.
            return as_dict(composed, resolve=True)
        except OmegaConfBaseException as error:
            raise UserError(f"configuration: {first_line(error)}") from error


def as_dict(config: DictConfig, *, resolve: bool = False) -> Config:
    """A configuration without OmegaConf."""
    container = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def register_files(overrides: Sequence[str]) -> None:
    """Show Hydra the files that stand in place of a group's choice: `recipe=mine/wide.yaml`."""
    groups = {path.name for path in configs_folder().iterdir() if path.is_dir()}
    for override in overrides:
        group, _, value = override.lstrip("+").partition("=")
        for name in value.split(",") if group in groups else []:
            if name.endswith(".yaml"):
                _register(group, name)


def _register(group: str, name: str) -> None:
    if Path(f"{configs_folder()}/{group}/{name}").is_file():
        raise UserError(
            f"{group}={name}: has the name of a file of the package, which is read instead; call "
            "it otherwise"
        )
    try:
        node = OmegaConf.load(name)
    except Exception as error:  # yaml's, OmegaConf's, OSError, ValueError, ...
        raise UserError(f"{group}={name}: cannot be read ({first_line(error)})") from error
    if isinstance(node, DictConfig):
        node.setdefault("defaults", [])
    if not isinstance(node, DictConfig) or not isinstance(node.defaults, ListConfig):
        raise UserError(f"{group}={name}: is not written as the files of configs/{group}/ are")
    # Beside the package's own files, not beside this one.
    node.defaults = [
        f"/{group}/{entry}@_here_" if isinstance(entry, str) and entry[:1] not in "_/" else entry
        for entry in node.defaults
    ]
    folder, _, file = name.rpartition("/")
    ConfigStore.instance().store(
        group=re.sub("/+", "/", f"{group}/{folder}").rstrip("/"),
        name=file,
        node=node,
        package="_global_" if group == "recipe" else group,
    )


def search_path(folders: Sequence[str]) -> str:
    """The override of Hydra's that stands for `--config-dir FOLDER`."""
    paths = [Path(folder).expanduser().resolve() for folder in folders]
    for path in paths:
        if not path.is_dir():
            raise UserError(f"--config-dir: {path}: no such folder; give one that holds recipe/")
        for file in sorted(path.rglob("*.yaml")):
            if (configs_folder() / file.relative_to(path)).is_file():
                raise UserError(
                    f"--config-dir: {file} has the name of a file of the package, which is read "
                    "instead; call it otherwise"
                )
    addresses = (f"'file://{path}'" for path in paths)
    return f"hydra.searchpath=[{','.join(addresses)}]"


def explained(
    error: HydraException | OmegaConfBaseException, name: str, overrides: Sequence[str]
) -> UserError:
    """What Hydra could not do with a configuration and its overrides, in one line."""
    if isinstance(error, MissingConfigException):
        return UserError(_explain_choice(error))
    return UserError(_explain(error, name, overrides))


def quoted(override: str) -> str:
    """Quote a value that Hydra's grammar cannot read as it stands: most paths, to begin with.

    What looks like a list, an object or a quoted text is left, for an error that names it.
    """
    key, equals, value = override.partition("=")
    if not equals or not value or value[0] in "[{\"'":
        return override
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        mark = "'" if '"' in value else '"'
        return override if mark in value or "\\" in value else f"{key}={mark}{value}{mark}"
    return override


def changed_words(config: Config, overrides: Sequence[str]) -> list[str]:
    """What was overridden, as `key=value` in one spelling: 0.40 and 4e-1 are 0.4.

    A choice in a group is there where the configuration's own names do not say it already.
    """
    values = dict(flatten(config))
    named = {"recipe": "recipe.name", "scale": "scale.name", "data": "data.kind"}
    words = []
    for override in overrides:
        key, _, given = override.lstrip("+~").partition("=")
        if key in values:
            value = values[key]
            words.append(f"{key}={str(value).lower() if isinstance(value, bool) else value}")
            continue
        choice = given.removesuffix(".yaml")
        name = choice.rpartition("/")[2]
        if values.get(named.get(key, "")) not in (name, choice.replace("/", "_")):
            words.append(f"{key}={name}")
    return words


def flatten(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf as ("optimizer.learning_rate", value)."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def write_yaml(config: Config) -> str:
    """Render a configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(config))


def _explain_choice(error: MissingConfigException) -> str:
    """One line for recipe=unknown: what was given, what there is."""
    missing = error.missing_cfg_file or ""
    if missing.startswith("hydra/launcher/"):
        launcher = missing.rpartition("/")[2]
        return (
            f"hydra/launcher={launcher}: there is no such launcher here; joblib and submitit come "
            "with pip install 'bn-inception[sweep]'"
        )
    group, _, choice = missing.partition("/")
    if not choice or not (configs_folder() / group).is_dir():
        return f"configuration: {first_line(error)}"
    known = choices_of(group)
    same = re.sub(r"[^a-z0-9/]+", "_", choice.lower())
    near = f"; write {group}={same}" if same in known else close_matches(choice, known)
    return f"{group}={choice}: there is no such {group}; choose from {', '.join(known)}{near}"


def _explain(error: Exception, name: str, overrides: Sequence[str]) -> str:
    """One line for an unknown key or a malformed override."""
    text = str(error)
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"[Kk]ey '([^']+)' (?:is )?not in", text
    )
    if unknown:
        key = unknown[1].split("@")[0]
        given = next((word for word in overrides if word.lstrip("+~").startswith(key + "=")), key)
        known = [key for key, _ in flatten(as_dict(hydra_compose(config_name=name)))]
        usual, text = HABITS.get(key.rpartition(".")[2], ("", ""))
        near = close_matches(key, known)
        if usual in known:
            near = f"; write {usual}={text.format(given.partition('=')[2] or 'VALUE')}"
        return (
            f"{given}: there is no key {key}{near}; "
            f"bn-inception {_words(name)} --cfg job prints all"
        )
    for override in overrides:
        try:
            OverridesParser.create().parse_override(override)
        except HydraException as malformed:
            return (
                f"{override}: {first_line(malformed)}; write key=value, and quote what is special"
            )
    return f"configuration: {first_line(error)}"


def _words(name: str) -> str:
    """The command of a configuration as it is typed: benchmark_input -> benchmark input."""
    return name.replace("_", " ")
