"""How many images a network got wrong, and how surely that is known."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Errors:
    """Top-1 and top-5 errors among `count` images; unreadable images are always wrong."""

    wrong: int
    wrong_top5: int
    count: int

    @property
    def rates(self) -> dict[str, float]:
        """Errors as fractions."""
        return {"top1_error": self.wrong / self.count, "top5_error": self.wrong_top5 / self.count}

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: counts, fractions, and their 95 % intervals."""
        return {
            **asdict(self),
            **self.rates,
            "top1_interval": list(wilson_interval(self.wrong, self.count)),
            "top5_interval": list(wilson_interval(self.wrong_top5, self.count)),
        }

    def lines(self) -> list[str]:
        """For a person, a line each for top-1 and top-5."""
        lines = []
        for name, wrong in (("top-1", self.wrong), ("top-5", self.wrong_top5)):
            low, high = wilson_interval(wrong, self.count)
            lines.append(
                f"{name} error {wrong / self.count:7.2%}  (95 %: {low:.2%} to {high:.2%}; "
                f"{wrong:,} of {self.count:,} images)"
            )
        return lines


def wilson_interval(wrong: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a rate (Wilson 1927), fractions in [0, 1]."""
    from scipy.stats import binomtest  # takes a second to load, and training asks for no interval

    interval = binomtest(wrong, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
