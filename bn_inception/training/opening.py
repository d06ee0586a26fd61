"""How a run begins or goes on: its folder, its checkpoint, and what is refused."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from bn_inception.data import open_sources
from bn_inception.errors import AgreedError, UserError
from bn_inception.files import first_line
from bn_inception.network import checkpoint
from bn_inception.record import RunFolder, describe, read_environment, write_environment
from bn_inception.training.distributed import ALONE, World
from bn_inception.training.local_batch import statement
from bn_inception.training.session import TO_RESUME, Session
from bn_inception.training.settings import RunConfig


def open_session(
    config: RunConfig,
    config_text: str,
    *,
    identity: str = "",
    resume: bool,
    changed: Mapping[str, tuple[Any, Any]] | None = None,
    say: Callable[[str], None],
    world: World = ALONE,
) -> Session:
    """Open the data, build the network, and create or reopen the run folder, locked.

    With several processes the first decides about the folder and reads the checkpoint for all. A
    new run folder is only made once everything else has been found good.

    Args:
        config: the run's configuration.
        config_text: the same as YAML, for the run folder.
        identity: a hash of what makes it this run; a checkpoint with another one is refused.
        resume: continue the run that is there instead of starting one.
        changed: settings that are others than the run had so far, (before, after) by key.
        say: told the warnings, and how the images are divided.
        world: the processes, connected.
    """
    sources = world.agreed(lambda: open_sources(config.data))
    for warning in sources.warnings:
        say(f"warning: {warning}")
    folder = RunFolder(config.run.root, config.run.name)
    session = world.agreed(lambda: Session(config, identity, sources, folder, world))
    if session.learner.remark is not None:
        say(f"warning: {session.learner.remark}")
    rate = config.optimizer.learning_rate
    if (said := statement(config.batch, session.local, world.size, rate=rate)) is not None:
        say(said)
    fingerprint = world.agreed(
        lambda: f"{sources.train.fingerprint}+{sources.validation.fingerprint}"
    )
    _require_one_set(world.gathered(fingerprint))
    environment = _environment(session, fingerprint)

    try:
        state = world.from_first(lambda: _opened(session, environment, resume, say))
        if state is not None:
            world.agreed(lambda: _restore(session, state))
            _say_what_is_other(session, changed or {}, say)
        resumed_at = None if state is None else session.step
        world.from_first(
            lambda: _describe_run(folder, config_text, environment, resumed_at, changed or {})
        )
        if state is None:
            world.agreed(session.recorder.start)
            session.save()
        session.learner.distribute()
    except BaseException:
        folder.close()
        raise
    return session


def _describe_run(
    folder: RunFolder,
    config_text: str,
    environment: dict[str, Any],
    resumed_at: int | None,
    changed: Mapping[str, tuple[Any, Any]],
) -> None:
    """Write `config.yaml` and `environment.json`, or what is other in a run that goes on."""
    if resumed_at is None:
        folder.write_config(config_text)
    write_environment(folder.environment, environment, resumed_at=resumed_at, changed=changed)
    if changed:
        folder.write_config(config_text)


def _require_one_set(fingerprints: list[str]) -> None:
    for rank, fingerprint in enumerate(fingerprints):
        if fingerprint != fingerprints[0]:
            raise AgreedError(
                f"data.root: process {rank} reads other images than process 0 (fingerprint "
                f"{fingerprint[:12]}, not {fingerprints[0][:12]}); give every machine the same data"
            )


def _environment(session: Session, fingerprint: str) -> dict[str, Any]:
    device = session.learner.device
    gpus = [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
    return describe(fingerprint, gpus=gpus) | {
        "processes": session.world.size,
        "images_per_process": session.local.images,
        "normalization_group": session.local.group,
        "machine": session.learner.execution.machine.described(device),
    }


def _opened(
    session: Session, environment: dict[str, Any], resume: bool, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """Lock the run's folder and read its checkpoint; None where none was ever written."""
    folder = session.folder
    if resume:
        folder.open_for_resume()
    else:
        folder.create()
    state = checkpoint.load_latest(folder.checkpoints, say, TO_RESUME)
    lines = folder.metrics.exists() and folder.metrics.stat().st_size > 0
    # A run is saved at step 0 before its first update: without a checkpoint there is no step to
    # lose, unless somebody removed the checkpoints.
    if state is None and (lines or (folder.checkpoints / checkpoint.BEST).exists()):
        raise UserError(
            f"{folder.checkpoints}: holds no last.pt or previous.pt, but the run has made steps; "
            "restore the file, or start again under another run.name"
        )
    if state is not None:
        _require_same_run(state, session)
        _require_same_environment(folder, environment)
    return state


def _require_same_run(state: dict[str, Any], session: Session) -> None:
    folder, config = session.folder, session.config
    if state.get("identity") != session.identity:
        theirs = f"{state.get('recipe')}, seed {state.get('seed')}"
        raise UserError(
            f"{folder.checkpoints}: the checkpoint is of another run ({theirs}; this one "
            f"is {config.recipe.name}, seed {config.run.seed}, and config.yaml says the rest); "
            "restore this run's own from a copy"
        )


def _require_same_environment(folder: RunFolder, environment: dict[str, Any]) -> None:
    saved = read_environment(folder.environment)
    before, now = str(saved.get("data_fingerprint", "")), environment["data_fingerprint"]
    if before != now:
        raise UserError(
            f"data.root: the images differ from those {folder.path} was started with "
            f"(fingerprint {now[:12]}, was {before[:12]}); give the same data, "
            "or another run.name"
        )
    # Compared here and not with the configuration: null is another format on another device.
    machine = saved.get("machine")
    format_before = machine.get("precision") if isinstance(machine, dict) else None
    format_now = environment["machine"]["precision"]
    if format_before != format_now:
        raise UserError(
            f"machine.precision: {folder.path} was started in {format_before} and would go on in "
            f"{format_now}; give machine.precision={format_before}, or another run.name"
        )


def _restore(session: Session, state: dict[str, Any]) -> None:
    try:
        session.restore(state)
    except UserError:
        raise
    except Exception as error:
        # What does not fit raises nearly anything, deep in torch.
        raise UserError(
            f"{session.folder.checkpoints}: the checkpoint does not fit this run "
            f"({first_line(error)}); restore it from a copy, or start again under another run.name"
        ) from error


def _say_what_is_other(
    session: Session, changed: Mapping[str, tuple[Any, Any]], say: Callable[[str], None]
) -> None:
    for key, (before, now) in changed.items():
        say(f"{key} was {before}, is {now} from step {session.step} on")
    file, best = session.folder.checkpoints / checkpoint.BEST, session.recorder.summary.best
    if best is not None and not file.exists():
        say(
            f"warning: {file} is missing: the network of step {best.step}, the best so far, is lost"
        )
