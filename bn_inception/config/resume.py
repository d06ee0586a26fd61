"""Whether a run may continue with the configuration it is given now."""

from bn_inception.config.compose import Config, flatten, read_yaml
from bn_inception.errors import UserError
from bn_inception.record import RunFolder
from bn_inception.training.settings import Resume, RunConfig

MAY_DIFFER = (
    "run.resume",
    "run.root",
    "train.",
    "machine.",
    "data.root",
    "data.cache",
    "data.workers",
    "data.on_error",
)
"""Keys, or their beginnings, that change neither the network nor the order of its images."""

MEANT_BEFORE: Config = {
    "batch.norm_group": 32,
    "batch.synchronized": True,
    "batch.rate_factor": 1,
    "optimizer.warmup": None,
    "data.backend": "pillow",
}
"""What runs that were started before these keys existed did."""


def check_unchanged(saved: Config, composed: Config, run_name: str) -> None:
    """Compare the configuration a run was started with against the one given now.

    Raises:
        UserError: a key differs that would make it another run; each is named with both values.
    """
    before, now = {**MEANT_BEFORE, **dict(flatten(saved))}, dict(flatten(composed))
    differing = [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(MAY_DIFFER)
    ]
    if differing:
        raise UserError(
            f"run.resume: {run_name} was started with another configuration: "
            f"{'; '.join(differing)}. Give the same values, or another run.name"
        )


def should_resume(config: RunConfig, composed: Config) -> bool:
    """Decide between a new run and the continuation of an earlier one.

    Args:
        config: its `run.resume` says what is wanted; `auto` continues where there is a run.
        composed: the same configuration, to be compared with the one in the run folder.

    Raises:
        UserError: the run was started with another configuration.
    """
    folder = RunFolder(config.run.root, config.run.name)
    wanted = config.run.resume
    if wanted is Resume.false or (wanted is Resume.auto and not folder.has_run()):
        return False
    if folder.config.exists():
        check_unchanged(read_yaml(folder.config), composed, str(folder.path))
    return True
