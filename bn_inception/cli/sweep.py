"""`bn-inception train -m`: several runs by Hydra's sweeper and launchers, a process each."""

import functools
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from bn_inception.config.compose import hydra_on, quoted
from bn_inception.errors import UserError
from bn_inception.files import first_line
from bn_inception.quoting import shell_command
from bn_inception.record.run_folder import SAME_RUN

_OURS = (
    # Beside the runs, where `outputs/*` does not find it: what launchers write down.
    "hydra.sweep.dir=${run.root}/.multirun",
    "hydra.sweep.subdir=${hydra.job.num}",
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
)


def sweep(overrides: Sequence[str]) -> int:
    """Make every run of a sweep, such as `recipe=inception,bn_x5`; the status is 1 if one failed.

    Finished runs are passed over, stopped ones are continued, and one that fails stops no other.
    """
    searched = [word for word in overrides if word.startswith("hydra.searchpath=")]
    given = [*_OURS, *map(quoted, overrides)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `run_one` ends its run
    with hydra_on("train", overrides) as hydra:
        for word in OverridesParser.create().parse_overrides(given):
            key = str(word.get_key_element())
            # With a dot: `machine`, the group, as well.
            if word.is_sweep_override() and f"{key}.".startswith(SAME_RUN) and key[:4] != "run.":
                raise UserError(
                    f"train -m: {key} is in no run's name, so that its runs would be one; start "
                    "them one by one, each with its own run.name"
                )
        try:
            batches = hydra.multirun("train", functools.partial(run_one, searched), given)
        except (HydraException, OmegaConfBaseException):
            raise
        except Exception as error:  # a launcher's own: no SLURM, a job that was killed
            raise UserError(f"train -m: {first_line(error)}") from error
    failed = [job for batch in batches for job in batch if job.return_value != 0]
    for job in failed:
        command = shell_command(["bn-inception", "train", *job.overrides])
        print(f"bn-inception: status {job.return_value}: {command}", file=sys.stderr)
    return 1 if failed else 0


def run_one(searched: Sequence[str], config: DictConfig) -> int:
    """Train with a job's overrides in a process of its own; return its exit status."""
    given: Any = HydraConfig.get().overrides.task
    command = [sys.executable, "-m", "bn_inception", "train", "run.resume=auto", *given, *searched]
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except BaseException:
            # Ctrl-C, or a launcher that ends the job: a run that is told so saves itself.
            process.terminate()
            process.wait()
            raise
