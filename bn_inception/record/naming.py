"""The name of a run that was given none: what it is of, and what was changed."""

import hashlib
import re
from collections.abc import Iterable

NOT_COMPUTED = (
    "machine.",
    "probe.",
    "data.root",
    "data.cache",
    "data.workers",
    "data.on_error",
)
"""Keys, or their beginnings, that say where and how a run is made, and nothing of what it is."""
SAME_RUN = ("train.", "run.name", "run.root", "run.resume", *NOT_COMPUTED)
"""Keys, or their beginnings, that change neither the network nor the order of its images: a run may
continue with others."""
_NAMED = ("run.seed", "recipe.name", "scale.name", "data.kind")
_APART = ("machine=", "milestones=", "hydra.")
LONGEST = 80


def suffix(words: Iterable[str]) -> str:
    """What follows a run's usual name, such as `-dropout0.4`: so that a changed run is another one.

    The same whatever the order of the words, and whatever is changed when a run continues. Where it
    would be longer than LONGEST, a hash stands for it. `words` are the `key=value` that were given.
    """
    said = {}
    for word in words:
        if not word.startswith((*SAME_RUN, *_NAMED, *_APART)):
            key, _, value = word.partition("=")
            said[key] = f"{key.rpartition('.')[2] if '.' in key else ''}{value}"
    parts = [re.sub(r"[^A-Za-z0-9_.+]+", "-", said[key]).strip("-.") for key in sorted(said)]
    text = "-".join(part for part in parts if part)
    if len(text) > LONGEST:
        text = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"-{text}" if text else ""
