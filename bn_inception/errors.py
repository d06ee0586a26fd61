"""The exceptions that a user may see."""

import difflib
import math
from collections.abc import Sequence


class UserError(ValueError):
    """Bad input: one line naming the thing, the value, what is allowed and the remedy.

    The command line prints the message without a traceback and exits with status 2.
    """


class AgreedError(UserError):
    """A UserError that every process of a run raises alike; only the first one prints it."""


def close_matches(word: str, known: Sequence[str]) -> str:
    """The end of an error's line, "; close: a, b", of the known words nearest to `word`, if any."""
    matches = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if not matches:
        tail = word.rpartition(".")[2]
        matches = [key for key in known if key.rpartition(".")[2] == tail][:3]
    return f"; close: {', '.join(matches)}" if matches else ""


def require_at_least(key: str, value: float | None, least: float, why: str = "") -> None:
    """Refuse a setting that is below `least`, or no number; None is not given."""
    if value is not None and not value >= least:
        raise UserError(f"{key}: {value} is not {least} or more{why}")


def require_positive(key: str, value: float, remedy: str = "") -> None:
    """Refuse a setting that is not a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{key}: {value} is not positive{remedy and '; '}{remedy}")
