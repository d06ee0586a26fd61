"""Run folders as a command's arguments: read, with what their configurations set otherwise."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bn_inception.config import compose, write_yaml
from bn_inception.config.compose import Config, configs_folder, flatten
from bn_inception.config.saved import saved_config, without_paths
from bn_inception.errors import UserError

if TYPE_CHECKING:
    from bn_inception.report import Evaluation, Run

_OPTIONS = (
    "run.",
    "machine.",
    "milestones",
    "data.root",
    "data.cache",
    "data.workers",
    "data.on_error",
    "train.evaluate_every",
    "train.checkpoint_every",
    "train.log_every",
    "train.start_check",
)
"""Keys, or their beginnings, that do not make a run another experiment."""
_PRIMARY = ("scale.", "batch.")
"""Keys that others are computed from."""
_DERIVED = ("recipe.name", "recipe.evaluate_every", "run.resume")
"""Keys that say nothing that is not said elsewhere."""


def read_run_arguments(paths: Sequence[str]) -> "tuple[list[Run], list[Evaluation]]":
    """Read run folders and evaluations of ensembles (`.json` files).

    Predictions, and folders that `compare` or `claims` have written, are passed over.

    Args:
        paths: as `outputs/*` gives them, in any order.

    Raises:
        UserError: no run folder, one given twice, or something broken in one.
    """
    from bn_inception.report import read_evaluation, read_runs

    predictions = [path for path in paths if path.endswith(".npz")]
    files = [path for path in paths if path.endswith(".json")]
    folders = [
        path
        for path in paths
        if path not in predictions and path not in files and not _is_report(Path(path))
    ]
    runs = [_with_overrides(run) for run in read_runs(folders)]
    return runs, [read_evaluation(path) for path in files]


def _is_report(folder: Path) -> bool:
    written = any((folder / name).is_file() for name in ("comparison.json", "claims.json"))
    return written and not (folder / "summary.json").is_file()


def _with_overrides(run: "Run") -> "Run":
    config = saved_config(run.path)
    if config is None:
        return run
    try:
        overrides, options = overrides_of(config)
    except (LookupError, TypeError) as error:
        raise UserError(
            f"{run.path / 'config.yaml'}: not a configuration of a run ({error})"
        ) from error
    shown = write_yaml(without_paths(config))
    return replace(run, overrides=overrides, options=options, config=shown)


def overrides_of(config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Compare a run's configuration with its recipe, scale and data as they are committed.

    Returns:
        The `key=value` that make it another experiment, and those that do not, each sorted. Keys
        that are not committed are left out.
    """
    choices = [
        f"recipe={_recipe_file(config['recipe']['name'])}",
        f"scale={config['scale']['name']}",
        f"data={config['data']['kind']}",
    ]
    try:
        committed = _committed(*choices)
    except UserError:
        # A recipe, scale or data set of somebody's own: nothing to compare with.
        return (), tuple(_differing(config, {}, _OPTIONS))
    primary = list(_differing(config, committed, _PRIMARY))
    expected = _committed(*choices, *primary)
    differing = list(_differing(config, expected, ("",)))
    options = [word for word in differing if word.startswith(_OPTIONS)]
    others = [word for word in differing if word not in options]
    return tuple(sorted({*primary, *others})), tuple(options)


def _differing(
    config: Config, committed: Mapping[str, Any], keys: tuple[str, ...]
) -> Iterator[str]:
    for key, value in sorted(flatten(config)):
        if not key.startswith(keys) or key in _DERIVED:
            continue
        if not committed or (key in committed and committed[key] != value):
            yield f"{key}={_written(value)}"


@cache
def _committed(*choices: str) -> dict[str, Any]:
    # A composition takes a fifth of a second, and the runs of one comparison share most.
    return dict(flatten(compose("train", choices)))


def _recipe_file(name: str) -> str:
    # recipe=ensemble/1 calls itself ensemble_1: a name is part of a folder's.
    nested = name.replace("_", "/", 1)
    return nested if (configs_folder() / "recipe" / f"{nested}.yaml").is_file() else name


def _written(value: Any) -> str:
    """A value as it is given on the command line, quoted for the shell where it must be."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return shlex.quote(f"[{','.join(map(_written, value))}]")
    return shlex.quote(str(value))
