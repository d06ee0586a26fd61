"""`bn-inception benchmark input|step`: speeds on this machine, as ratios in one run."""

import difflib
import importlib
from collections.abc import Sequence

from bn_inception.errors import UserError

# Each module has a `run(arguments) -> status`.
SUBJECTS = {
    "input": "bn_inception.cli.benchmark_input",
    "step": "bn_inception.cli.benchmark_step",
}


def run(arguments: Sequence[str]) -> int:
    """Measure the subject named first; return 0."""
    subject = arguments[0] if arguments else ""
    if subject not in SUBJECTS:
        given = subject or "no subject"
        near = difflib.get_close_matches(subject, SUBJECTS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"benchmark: {given}; write bn-inception benchmark {'|'.join(SUBJECTS)} "
            f"[key=value ...]{hint}"
        )
    status: int = importlib.import_module(SUBJECTS[subject]).run(arguments[1:])
    return status
