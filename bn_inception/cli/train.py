"""`bn-inception train`: one run, from the composed configuration to its summary."""

import sys
from collections.abc import Sequence

from bn_inception.cli.arguments import split_positional, take_print_config
from bn_inception.config import compose, run_config, write_yaml
from bn_inception.errors import UserError
from bn_inception.record import RunFolder, RunStatus, Summary


def run(arguments: Sequence[str]) -> int:
    """Train; return 0 for a run that finished or diverged, 128 + signal for a stopped one."""
    arguments, print_config = take_print_config(arguments)
    plain, overrides = split_positional(arguments)
    if plain:
        raise UserError(f"{plain[0]}: train takes key=value only; see bn-inception train --help")
    composed = compose("train", overrides)
    config = run_config(composed)
    if print_config:
        print(write_yaml(composed), end="")
        return 0

    from bn_inception.config.resume import should_resume
    from bn_inception.training import Console, StopRequest, open_session, train

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    resume = should_resume(config, composed)
    with StopRequest() as stop:
        session = open_session(config, write_yaml(composed), resume=resume, say=say)
        with session.folder:
            console = Console(config.run.name, session.plan.steps, session.step)
            try:
                summary = train(session, console, stop)
            finally:
                console.close()
    print(_last_words(session.folder, summary))
    return 128 + stop.signal if summary.status is RunStatus.interrupted and stop.signal else 0


def _last_words(folder: RunFolder, summary: Summary) -> str:
    """One line: how the run ended, what it reached, where it is."""
    best = summary.best
    accuracy = f", best top-1 {best.top1:.2%} at step {best.step}" if best else ""
    ended = summary.status.value
    if summary.diverged is not None:
        ended = f"diverged at step {summary.diverged.step} in layer {summary.diverged.layer}"
    if summary.status is RunStatus.interrupted:
        ended = f"interrupted at step {summary.step} (continue with run.resume=true)"
    return f"{folder.name}: {ended}{accuracy}; {folder.path}"
