"""How sure a ratio of times is: Student's intervals of log ratios, where a round is one observation.

Times are multiplicative, so ratios are compared on a log scale. What disturbs one call disturbs its neighbours, so
calls are no independent observations and rounds (their medians) are: T. Kalibera, R. Jones, Rigorous Benchmarking in
Reasonable Time (ISMM 2013), sections 5 to 7. Rounds taken side by side share the machine's load and are compared in
pairs (J. W. Tukey, D. H. McLaughlin, Sankhya A 25, 1963); rounds of two processes are not (K. K. Yuen, Biometrika 61,
1974). Both are Student's tests of trimmed means: a round in which something else had the machine is an outlier, which
must neither make a winner nor hide one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
TRIM = 0.2  # of the rounds at either end: 2 of 10, and none of fewer than 5
_SAME = 1e-12  # log ratios this close are one number


@dataclass(frozen=True)
class LogMean:
    """The trimmed mean of log ratios with its standard error and degrees of freedom."""

    mean: float
    error: float
    freedom: float

    @property
    def ratio(self) -> float:
        """The trimmed geometric mean of the ratios."""
        return math.exp(self.mean)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The interval of `ratio`."""
        half = student_quantile(0.5 + level / 2, self.freedom) * self.error
        return math.exp(self.mean - half), math.exp(self.mean + half)

    def p_above(self, ratio: float = 1.0) -> float:
        """One-sided p-value of "the true ratio is at most `ratio`"."""
        gap = self.mean - math.log(ratio)
        if self.error < _SAME:
            return float(gap < _SAME)
        return 1 - student_cdf(gap / self.error, self.freedom)

    def p_below(self, ratio: float = 1.0) -> float:
        """One-sided p-value of "the true ratio is at least `ratio`"."""
        return LogMean(-self.mean, self.error, self.freedom).p_above(1 / ratio)

    def p_value(self, tolerance: float = 0.0) -> float:
        """Two-sided p-value of "neither is more than `tolerance` slower than the other"."""
        worst = 1 + tolerance
        return min(1.0, 2 * min(self.p_above(worst), self.p_below(1 / worst)))


def spread(times: ArrayLike) -> float:
    """Relative half-width of the 95 % interval of the rounds' mean: what a median of `times` (rounds,) is unsure by.

    Raises ValueError as `paired`.
    """
    found = _trimmed(_logs(times))
    return LogMean(0.0, found.error, found.freedom).interval()[1] - 1


def paired(numerator: ArrayLike, denominator: ArrayLike) -> LogMean:
    """numerator / denominator of the same rounds, (rounds,) each. Raises ValueError with fewer than two rounds, with
    unequal numbers of them, or where a time is not above zero."""
    above, below = _logs(numerator), _logs(denominator)
    if above.shape != below.shape:
        raise ValueError(f"pairs are taken round by round (got {len(above)} and {len(below)} rounds)")
    return _trimmed(above - below)


def unpaired(numerator: ArrayLike, denominator: ArrayLike) -> LogMean:
    """numerator / denominator of two processes, (rounds,) each, as many or not. Raises ValueError as `paired`."""
    above, below = _trimmed(_logs(numerator)), _trimmed(_logs(denominator))
    total = above.error**2 + below.error**2
    weights = sum(part.error**4 / part.freedom for part in (above, below))
    freedom = total**2 / weights if weights else above.freedom + below.freedom
    return LogMean(above.mean - below.mean, math.sqrt(total), freedom)


def _trimmed(logs: NDArray[np.float64]) -> LogMean:
    """The mean without the lowest and highest `TRIM`, and its error from the winsorized variance."""
    count, ordered = len(logs), np.sort(logs)
    cut = int(TRIM * count)
    kept = count - 2 * cut
    winsorized = np.clip(logs, ordered[cut], ordered[count - 1 - cut])
    variance = float(winsorized.var(ddof=1)) * (count - 1) / (kept * (kept - 1))
    return LogMean(float(ordered[cut : count - cut].mean()), math.sqrt(variance), kept - 1)


def student_cdf(t: float, freedom: float) -> float:
    """P(T <= t) of Student's t distribution, through the incomplete beta function."""
    if math.isinf(t):
        return float(t > 0)
    tail = 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))
    return 1 - tail if t > 0 else tail


def student_quantile(p: float, freedom: float) -> float:
    """The t with P(T <= t) = p, for 0.5 <= p < 1."""
    if not 0.5 <= p < 1:
        raise ValueError(f"p lies between 0.5 and 1 (got {p})")
    high = 1.0
    while student_cdf(high, freedom) < p:
        high *= 2
    return _bisect(lambda t: student_cdf(t, freedom) - p, 0.0, high)


def _logs(times: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(times, np.float64)
    if values.ndim != 1 or len(values) < 2 or not (values > 0).all():
        raise ValueError("an interval needs two rounds or more, and times above zero")
    logs: NDArray[np.float64] = np.log(values)
    return logs


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised I_x(a, b) by its continued fraction (Lentz), as Numerical Recipes (3rd ed.), section 6.4, has it."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction of the other side converges faster
        return 1 - _incomplete_beta(b, a, 1 - x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away_from_zero(1 + term * d, tiny)
            c = _away_from_zero(1 + term / c, tiny)
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return math.exp(scale) * fraction / a


def _away_from_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


def _bisect(rising: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
