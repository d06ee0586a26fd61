"""`bn-inception train`: one run, from the composed configuration to its summary."""

import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack

from bn_inception.cli.command import Call, command
from bn_inception.cli.sweep import sweep
from bn_inception.config import compose, write_yaml
from bn_inception.config.compose import Config, changed_words
from bn_inception.config.resume import RECORDED, continuation, continued, identity
from bn_inception.data.config import DataConfig, audit_command
from bn_inception.errors import UserError
from bn_inception.record.run_folder import RunFolder, suffix
from bn_inception.record.summary import RunStatus, Summary
from bn_inception.training.console import Console
from bn_inception.training.distributed import World, joined, world_from_environment
from bn_inception.training.loop import train as train_session
from bn_inception.training.machine import choose_device
from bn_inception.training.session import StopRequest, open_session
from bn_inception.training.settings import RunConfig


def read(overrides: list[str]) -> Config:
    """The configuration, with a name that says what was changed; or that of `resume=FOLDER`."""
    folders = [word.partition("=")[2] for word in overrides if word.startswith("resume=")]
    if folders:
        others = [word for word in overrides if not word.startswith("resume=")]
        return continued(folders[-1], others)
    composed = compose("train", overrides)
    if not any(word.startswith("run.name=") for word in overrides):
        composed["run"]["name"] += suffix(changed_words(composed, overrides))
    return composed


@command("train", RunConfig, read=read, multirun=sweep)
def train(call: Call[RunConfig]) -> int:
    """Train; the status is 0 for a run that finished or diverged, 128 + signal for a stopped one.

    Under torchrun this is one process of several; every one returns the same.
    """
    world = world_from_environment()
    if world.size == 1:
        return _train(call.config, call.composed, world)
    from torch.distributed.elastic.multiprocessing.errors import record

    # Writes an exception where torchrun looks for it, so that it names the first cause.
    return record(_train)(call.config, call.composed, world) or 0


def _train(config: RunConfig, composed: Config, world: World) -> int:
    device = choose_device(config.machine.device, world)
    with ExitStack() as stack:
        # One process speaks and writes; to the others the terminal is nowhere.
        terminal = sys.stderr if world.first else stack.enter_context(open(os.devnull, "w"))
        console = Console(terminal)
        stack.enter_context(joined(world, device, config.machine.timeout))
        changed = world.from_first(lambda: continuation(config, composed))
        recorded = {}
        for key, (before, now) in (changed or {}).items():
            if key.startswith(RECORDED):
                recorded[key] = before, now
            else:
                console.say(f"{key} was {before}, is {now}")
        session = open_session(
            config,
            write_yaml(composed),
            identity=identity(composed),
            resume=changed is not None,
            changed=recorded,
            say=console.say,
            world=world,
        )
        with session.folder:
            # Not earlier: before its first update a run has nothing that is not on disk, and a
            # signal ends it at once, wherever it waits.
            stop = stack.enter_context(StopRequest())
            try:
                summary = train_session(session, console, stop)
            except UserError as error:
                console.log(f"bn-inception: {error}")
                raise
            finally:
                console.close()
            for line in _last_words(session.folder, summary, config.data):
                console.log(line)
                if world.first:
                    print(line)
    return 128 + stop.signal if summary.status is RunStatus.interrupted and stop.signal else 0


def _last_words(folder: RunFolder, summary: Summary, data: DataConfig) -> Iterator[str]:
    """How the run ended, what it reached, how many images it could not read, where it is."""
    best = summary.best
    accuracy = f", best top-1 {best.top1:.2%} at step {best.step}" if best else ""
    ended = summary.status.value
    if summary.diverged is not None:
        ended = f"diverged at step {summary.diverged.step} in layer {summary.diverged.layer}"
    if summary.status is RunStatus.interrupted:
        ended = f"interrupted at step {summary.step} (continue with run.resume=must)"
    words = f"{folder.name}: {ended}{accuracy}"
    if replaced := len(summary.replaced_images):
        words += f"; training images that cannot be read and were replaced: {replaced:,}"
    # Neither a path nor a name is cut: they are for copying.
    yield from textwrap.wrap(
        f"{words}; {folder.path}", 80, subsequent_indent="  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    if replaced and (audit := audit_command(data)):
        yield f"  find them all: {audit}"
