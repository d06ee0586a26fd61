"""Dispatch: one command, its help, and one place that turns errors into lines and statuses."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bn_inception.errors import UserError

DEBUG = "BN_INCEPTION_DEBUG"
BAD_INPUT = 2


@dataclass(frozen=True)
class Command:
    """One command: the module with its `run(arguments) -> status`, and its help."""

    module: str
    summary: str
    usage: str


COMMANDS = {
    "train": Command(
        "bn_inception.cli.train",
        "train one recipe; record steps, accuracy and milestones in outputs/<run.name>",
        """\
usage: bn-inception train [recipe=NAME] [scale=NAME] [data=NAME] [key=value ...]

  recipe=   inception | bn_baseline | bn_x5 | bn_x30 | bn_x5_sigmoid |
            inception_x5 | inception_sigmoid          (default bn_x5)
  scale=    paper | small | cpu | demo                (default demo)
  data=     imagenet | folder | tiny_imagenet | synthetic (default synthetic)

  run.name= run.root=outputs run.seed=0 run.resume=false|true|auto
  train.steps= train.evaluate_every= train.checkpoint_every=   (2000 or '8 epochs')
  optimizer.learning_rate= batch.global=32 milestones=[0.2,0.3]
  data.root= data.workers= data.on_error=fail|skip data.first_classes=
  network.pool_projection=96|128 network.first_convolution=separable|full
  network.auxiliary_head= network.convolution_bias= network.width=
  machine.device=auto|cpu|cuda machine.threads=

  --cfg job   print the resolved configuration and stop

examples:
  bn-inception train recipe=bn_x30 scale=paper data=imagenet data.root=/data/imagenet
  bn-inception train recipe=inception scale=cpu data=tiny_imagenet data.root=tiny
  bn-inception train recipe=inception scale=cpu run.resume=true""",
    ),
    "compare": Command(
        "bn_inception.cli.compare",
        "the paper's Figure 3 and Figure 2 for the runs you have made",
        """\
usage: bn-inception compare RUN_FOLDER ... [baseline=inception] [output=FOLDER]

  baseline=   recipe or run name whose maximum accuracy is the target
  output=     also write comparison.md, comparison.json, figure2.png and figure2.svg there

  --cfg job   print the resolved configuration and stop

example:
  bn-inception compare outputs/inception-cpu-* outputs/bn_x5-cpu-* output=results/mine""",
    ),
}


def overview() -> str:
    """Return the text of `bn-inception --help`."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {entry.summary}" for name, entry in COMMANDS.items())
    return (
        "usage: bn-inception COMMAND [key=value ...]\n\n"
        "Reproduces Batch Normalization (Ioffe and Szegedy, 2015).\n\n"
        f"commands:\n{rows}\n\n"
        "bn-inception COMMAND --help shows a command's keys and examples."
    )


def dispatch(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status: 0, or 2 for bad input."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0 if arguments else BAD_INPUT
    name, *rest = arguments
    if name == "--version":
        from bn_inception import __version__

        print(f"bn-inception {__version__}")
        return 0
    command = COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{name}: no such command; choose from {', '.join(COMMANDS)}{hint}")
    if "-h" in rest or "--help" in rest:
        print(command.usage)
        return 0
    status: int = importlib.import_module(command.module).run(rest)
    return status


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        status = dispatch(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except UserError as error:
        if os.environ.get(DEBUG):
            raise
        print(f"bn-inception: {' '.join(str(error).split())}", file=sys.stderr)
        status = BAD_INPUT
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
