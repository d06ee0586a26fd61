"""The one place that turns a duration into steps."""

import math
import re
from fractions import Fraction

from bn_inception.errors import UserError

Duration = int | float | str

_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?"
_TEXT = re.compile(
    rf"\s*(?P<numerator>{_NUMBER})(?:/(?P<denominator>{_NUMBER}))?"
    r"\s*(?:(?P<unit>step|epoch|image|example)s?)?\s*",
    re.ASCII,
)


def steps(duration: Duration, *, batch: int, images: int, key: str = "duration") -> float:
    """Turn a duration into steps, one step being one optimizer update on a global mini-batch.

    Args:
        duration: a number of steps, or a text: "2000", "2000 steps", "8 epochs", "8/6 epochs",
            "1e6 images" ("examples" means the same).
        batch: images in a global mini-batch.
        images: images in one epoch, that is, in the training set.
        key: the setting's name, for the error message.

    Returns:
        Steps, not rounded: a decay interval may well lie between two steps.
    """
    text = "" if isinstance(duration, bool) else str(duration)
    match = _TEXT.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        number = float(Fraction(match["numerator"]) / Fraction(match["denominator"] or "1"))
        if not (math.isfinite(number) and number > 0):
            raise ValueError(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UserError(
            f"{key}: {duration!r} is not a positive duration; give a number of steps or a text "
            "such as '2000 steps', '8 epochs' or '1e6 images'"
        ) from None
    if match["unit"] == "epoch":
        number *= images
    return number if match["unit"] in (None, "step") else number / batch


def whole_steps(duration: Duration, *, batch: int, images: int, key: str = "duration") -> int:
    """Return the duration in whole steps, rounded to the nearest, at least 1 (see `steps`)."""
    return max(1, round(steps(duration, batch=batch, images=images, key=key)))
