"""The one place that turns a duration into steps."""

import math
import re
from fractions import Fraction

from bn_inception.errors import UserError

Duration = int | float | str

_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?"
_TEXT = re.compile(
    rf"\s*(?P<numerator>{_NUMBER})(?:/(?P<denominator>{_NUMBER}))?"
    r"\s*(?P<unit>steps?|epochs?|images?|examples?)?\s*",
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

    Raises:
        UserError: the duration is not positive and finite, or not of these forms.
    """
    number, unit = _parse(duration, key)
    if not (math.isfinite(number) and number > 0):
        raise UserError(
            f"{key}: {duration!r} is not a positive duration; give a number of steps or a text "
            "such as '8 epochs'"
        )
    if unit == "epoch":
        return number * images / batch
    if unit in ("image", "example"):
        return number / batch
    return number


def whole_steps(duration: Duration, *, batch: int, images: int, key: str = "duration") -> int:
    """Return the duration in whole steps, rounded to the nearest, at least 1 (see `steps`)."""
    return max(1, round(steps(duration, batch=batch, images=images, key=key)))


def _parse(duration: Duration, key: str) -> tuple[float, str]:
    if isinstance(duration, int | float) and not isinstance(duration, bool):
        return float(duration), "step"
    match = _TEXT.fullmatch(duration) if isinstance(duration, str) else None
    if match is not None:
        try:
            number = Fraction(match["numerator"]) / Fraction(match["denominator"] or "1")
            return float(number), (match["unit"] or "step").removesuffix("s")
        except (ValueError, ZeroDivisionError, OverflowError):
            pass
    raise UserError(
        f"{key}: {duration!r} is not a duration; give a number of steps or a text such as "
        "'2000 steps', '8 epochs' or '1e6 images'"
    )
