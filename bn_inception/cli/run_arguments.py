"""Run folders as a command's arguments: read, with what their configurations set otherwise."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from bn_inception.config import compose
from bn_inception.config.compose import Config, flatten, written
from bn_inception.config.saved import saved_config
from bn_inception.errors import UserError
from bn_inception.files import configs_folder
from bn_inception.record.environment import without_folders
from bn_inception.record.run_folder import NOT_COMPUTED
from bn_inception.report.runs import Evaluation, Run, read_evaluation, read_runs

_OPTIONS = (
    *NOT_COMPUTED,
    "run.",
    "milestones",
    "train.checkpoint_",
    "train.log_every",
    "train.start_check",
)
"""Keys, or their beginnings, that do not make a run another experiment. The number format that
`machine.precision` came to stands in environment.json, and counts."""
_PRIMARY = ("scale.", "batch.")
"""Keys that others are computed from."""
_DERIVED = ("recipe.name", "run.resume")
"""Keys that say nothing that is not said elsewhere."""


def read_run_arguments(paths: Sequence[str]) -> tuple[list[Run], list[Evaluation]]:
    """Read run folders, and evaluations of ensembles, as `outputs/*` gives them.

    Predictions, and folders that `compare`, `claims` or `mnist` have written, are passed over.
    """
    folders = [path for path in paths if not path.endswith((".json", ".npz"))]
    runs = read_runs([path for path in folders if not _is_report(Path(path))])
    ensembles = [read_evaluation(path) for path in paths if path.endswith(".json")]
    return [as_configured(run, saved_config(run.path)) for run in runs], ensembles


def _is_report(folder: Path) -> bool:
    if (folder / "summary.json").is_file():
        return False
    names = ("comparison.json", "claims.json", "figure1.json")
    return any((folder / name).is_file() for name in names)


def as_configured(run: Run, config: Config | None) -> Run:
    """A run, and how its configuration differs from recipe, scale and data as they are committed.

    A key that the configuration lacks is off in it; where it is on now, what was run is unknown.
    """
    if config is None:
        return replace(run, unknown=("there is no config.yaml",))
    try:
        known = _compared(run, config)
    except (LookupError, TypeError) as error:
        raise UserError(
            f"{run.path / 'config.yaml'}: not a configuration of a run ({error})"
        ) from error
    shown = {key: _shown(value) for key, value in flatten(config)}
    return replace(known, config=shown, unknown=(*known.unknown, *_changes(run.environment)))


def _shown(value: Any) -> Any:
    """To be shown to others: absolute paths are shortened to their last part."""
    if isinstance(value, list):
        return list(map(_shown, value))
    return without_folders(value) if isinstance(value, str) else value


def _changes(environment: Mapping[str, Any]) -> Iterator[str]:
    """What was changed while a run was under way, where that matters, a clause each."""
    for change in environment.get("changes", []):
        changed = change.get("changed") if isinstance(change, dict) else None
        for key, values in sorted(changed.items()) if isinstance(changed, dict) else []:
            if not key.startswith(_OPTIONS):
                before_after = values if isinstance(values, list) else [values]
                said = " -> ".join(map(_written, before_after))
                yield f"changed at step {change.get('step', 'unknown')}: {key} {said}"


def _compared(run: Run, config: Config) -> Run:
    choices = [
        f"recipe={_recipe_file(config['recipe']['name'])}",
        f"scale={config['scale']['name']}",
        f"data={config['data']['kind']}",
    ]
    values = dict(flatten(config))
    try:
        committed = _committed(*choices)
    except UserError as error:
        # A recipe, scale or data set of somebody's own: nothing to compare with.
        mine = {key: value for key, value in values.items() if key.startswith(_OPTIONS)}
        return replace(run, options=_words(mine), unknown=(f"{error}",))
    changed = _differing(values, committed).items()
    primary = _words({key: value for key, value in changed if key.startswith(_PRIMARY)})
    expected = _committed(*choices, *primary)
    differing = _differing(values, expected)
    options = {key: differing.pop(key) for key in list(differing) if key.startswith(_OPTIONS)}
    lacking = [
        key
        for key, value in sorted(expected.items())
        if value and key not in values and not key.startswith((*_OPTIONS, *_DERIVED))
    ]
    return replace(
        run,
        overrides=tuple(sorted({*primary, *_words(differing)})),
        options=_words(options),
        unknown=(f"config.yaml lacks {', '.join(lacking)}",) if lacking else (),
        recipe_steps=max(1, round(expected["train.steps"])),  # as `training.schedule.Schedule`
    )


def _differing(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Of the keys in both."""
    return {key: values[key] for key in values.keys() & others if values[key] != others[key]}


def _words(values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        f"{key}={_written(value)}" for key, value in sorted(values.items()) if key not in _DERIVED
    )


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
    return shlex.quote(written(value))
