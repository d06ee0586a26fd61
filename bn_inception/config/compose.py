"""Hydra's composition, checked against dataclasses; one clear line where something is wrong."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from bn_inception.errors import UserError, close_matches
from bn_inception.files import choices_of, configs_folder, expanded, first_line, refusing
from bn_inception.paper.results import MINI_BATCH

if TYPE_CHECKING:
    from bn_inception.training.settings import RunConfig

Config = dict[str, Any]
Schema = TypeVar("Schema")
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
LARGEST = 1 << 63


def _compressed(duration: float, compression: float, batch: int) -> float | int:
    """Divide a duration in the paper's steps of 32 images by a scale's factor."""
    if not _positive(duration, compression, batch):
        return duration  # the check against the schema, which follows, names the culprit
    steps = duration * MINI_BATCH / (compression * batch)
    return int(steps) if float(steps).is_integer() else steps


def _scaled_rate(rate: float, *factors: float) -> float:
    """Multiply a recipe's rate by the scale's factor and the mini-batch's."""
    if not _positive(rate, *factors):
        return rate  # the check against the schema, which follows, names the culprit
    return math.prod(factors, start=rate)


def _positive(*values: object) -> bool:
    return all(isinstance(value, int | float) and value > 0 for value in values)


def compose(name: str, overrides: Sequence[str]) -> Config:
    """Compose `configs/<name>.yaml` with `key=value` overrides and resolve it."""
    OmegaConf.register_new_resolver("compressed", _compressed, replace=True)
    OmegaConf.register_new_resolver("scaled_rate", _scaled_rate, replace=True)
    for override in overrides:
        if override.startswith("-"):
            raise UserError(f"{override}: unknown option; see bn-inception {_words(name)} --help")
    with hydra_on(name, overrides):
        composed = hydra_compose(config_name=name, overrides=list(map(quoted, overrides)))
        # The unset "???" are left to the check against the schema, which names them.
        return as_dict(composed, resolve=True)


@contextmanager
def hydra_on(name: str, overrides: Sequence[str] = ()) -> Iterator[Any]:
    """Hydra on the files of `configs/`, and on those that stand in the overrides.

    What it cannot do with `overrides` to `configs/<name>.yaml` becomes a UserError.
    """
    for group, file in _files_in(overrides):
        _register(group, file)
    if GlobalHydra.instance().is_initialized():
        GlobalHydra.instance().clear()
    with initialize_config_dir(str(configs_folder()), name, "1.3"):
        try:
            yield GlobalHydra.instance().hydra
        except UserError:
            raise
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_explain(error, name, overrides)) from error
        except (ValueError, TypeError) as error:
            # Hydra's own, where a group is given something that is no name: null, [1].
            raise UserError(f"configuration: {first_line(error)}; give a group's name") from error


def as_dict(config: DictConfig, *, resolve: bool = False) -> Config:
    """A configuration without OmegaConf."""
    container = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _files_in(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The files that stand in place of a group's choice, as in `recipe=mine/wide.yaml`."""
    groups = {path.name for path in configs_folder().iterdir() if path.is_dir()}
    for override in overrides:
        group, _, value = override.lstrip("+").partition("=")
        for name in value.split(",") if group in groups else []:
            if name.endswith(".yaml"):
                yield group, name


def _register(group: str, name: str) -> None:
    """Show Hydra a file beside the package's own of a group."""
    if Path(f"{configs_folder()}/{group}/{name}").is_file():
        raise UserError(
            f"{group}={name}: has the name of a file of the package, which is read instead; call "
            "it otherwise"
        )
    # yaml's errors, OmegaConf's, OSError, ValueError, ...
    with refusing(f"{group}={name}: cannot be read", "give a YAML file", Exception):
        node = OmegaConf.load(name)
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
    paths = [expanded(folder).resolve() for folder in folders]
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


def quoted(override: str) -> str:
    """Quote a value that Hydra's grammar cannot read as it stands: most paths, to begin with.

    What looks like a list, an object or a quoted text is left, for an error that names it. In
    run.root `~` is the home folder: Hydra's own files of a sweep lie there too.
    """
    key, equals, value = override.partition("=")
    if key == "run.root" and value[:1] == "~":
        override = f"{key}={(value := str(expanded(value)))}"
    if not equals or not value or value[0] in "[{\"'" or _malformed(override) is None:
        return override
    mark = "'" if '"' in value else '"'
    return override if mark in value or "\\" in value else f"{key}={mark}{value}{mark}"


def _malformed(override: str) -> str | None:
    """What Hydra's grammar has against an override."""
    try:
        OverridesParser.create().parse_override(override)
    except HydraException as error:
        return first_line(error)
    return None


def keys_given(overrides: Sequence[str]) -> list[str]:
    """The key of every override."""
    return [override.lstrip("+~").partition("=")[0] for override in overrides]


def changed_words(config: Config, overrides: Sequence[str]) -> list[str]:
    """What was overridden, as `key=value` in one spelling: 0.40 and 4e-1 are 0.4.

    A choice in a group is there where the configuration's own names do not say it already.
    """
    values = dict(flatten(config))
    named = {"recipe": "recipe.name", "scale": "scale.name", "data": "data.kind"}
    words = []
    for key, override in zip(keys_given(overrides), overrides, strict=True):
        choice = override.partition("=")[2].removesuffix(".yaml")
        name = choice.rpartition("/")[2]
        if key in values:
            words.append(f"{key}={written(values[key])}")
        elif values.get(named.get(key, "")) not in (name, choice.replace("/", "_")):
            words.append(f"{key}={name}")
    return words


def flatten(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf as ("optimizer.learning_rate", value)."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def written(value: Any) -> str:
    """A value as it is typed in `key=value`."""
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def write_yaml(config: Config) -> str:
    """Render a configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(config))


def run_config(config: Config) -> "RunConfig":
    """A training configuration, checked, as plain typed objects."""
    from bn_inception.training.settings import RunConfig  # late, because it imports torch

    return checked(config, RunConfig)


def checked(config: Config, schema: type[Schema]) -> Schema:
    """`config` as the dataclass `schema`; a UserError names the first thing that does not fit."""
    refuse_numbers(config)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), config)
        for missing in sorted(OmegaConf.missing_keys(merged)):
            raise UserError(f"{missing}: not set; give {missing}=VALUE")
        built = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(_misfit(error, config)) from error
    assert isinstance(built, schema)
    return built


def refuse_numbers(config: Config, where: str = "") -> None:
    """Raise UserError for a number that is infinite, not a number, or an integer over 64 bits."""
    for key, value in flatten(config):
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"{where}{key}: {number} is out of range; give a finite number")
            if isinstance(number, int) and not -LARGEST <= number < LARGEST:
                raise UserError(f"{where}{key}: an integer over 64 bits; give a smaller number")


def _misfit(error: OmegaConfBaseException, config: Config) -> str:
    """One line for a key or value that the schema refuses."""
    key, values = error.full_key or error.key or "configuration", dict(flatten(config))
    if isinstance(error, ConfigKeyError):
        return f"{key}: there is no such key{close_matches(key, sorted(values.keys() - {key}))}"
    key = re.sub(r"\[\d+\]$", "", key)
    value = values.get(key)
    reason = (error.msg or str(error)).strip().splitlines()[0]
    if allowed := re.search(r"(?:must be|expected) one of \[([^\]]*)\]", reason):
        reason = f"choose from {allowed[1]}"
    if "is not a ListConfig" in reason:
        reason = f"write a list, {key}=[{value}]"
    return f"{key}: {value!r} does not fit; {reason}"


def _explain(error: Exception, name: str, overrides: Sequence[str]) -> str:
    """One line for an unknown choice, an unknown key or a malformed override."""
    missing = getattr(error, "missing_cfg_file", None) or ""
    group, _, choice = missing.partition("/")
    if choice.startswith("launcher/"):
        return (
            f"{group}/{choice.replace('/', '=')}: there is no such launcher here; joblib and "
            "submitit come with pip install 'bn-inception[sweep]'"
        )
    if choice and (configs_folder() / group).is_dir():
        return _unknown_choice(group, choice)
    unknown = re.search(
        r"Could not override '([^'@]+)|[Kk]ey '([^'@]+)[^']*' (?:is )?not in", str(error)
    )
    if unknown:
        return _unknown_key(unknown[1] or unknown[2], name, overrides)
    for override in overrides:
        if malformed := _malformed(override):
            return f"{override}: {malformed}; write key=value, and quote what is special"
    return f"configuration: {first_line(error)}"


def _unknown_choice(group: str, choice: str) -> str:
    """One line for recipe=unknown: what was given, what there is."""
    known = choices_of(group)
    same = re.sub(r"[^a-z0-9/]+", "_", choice.lower())
    near = f"; write {group}={same}" if same in known else close_matches(choice, known)
    return f"{group}={choice}: there is no such {group}; choose from {', '.join(known)}{near}"


def _unknown_key(key: str, name: str, overrides: Sequence[str]) -> str:
    """One line for a key that there is not: what is close to it, or what others call so."""
    given = next((word for word in overrides if word.lstrip("+~").startswith(f"{key}=")), key)
    known = [key for key, _ in flatten(as_dict(hydra_compose(config_name=name)))]
    usual, text = HABITS.get(key.rpartition(".")[2], ("", ""))
    near = close_matches(key, known)
    if usual in known:
        near = f"; write {usual}={text.format(given.partition('=')[2] or 'VALUE')}"
    command = f"bn-inception {_words(name)}"
    return f"{given}: there is no key {key}{near}; {command} --cfg job prints all"


def _words(name: str) -> str:
    """The command of a configuration as it is typed: benchmark_input -> benchmark input."""
    return name.replace("_", " ")
