"""How sure a number is: percentile bootstrap over users, paired differences, Holm's correction.

Method: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile interval) and
chapter 16 (p-value); S. Holm, A Simple Sequentially Rejective Multiple Test Procedure (1979).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]

RESAMPLES = 4000
_CHUNK = 4_000_000  # draws held in memory at once (32 MB)


def bootstrap_means(values: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """Means of `resamples` samples drawn with replacement from `values` (users,) -> float64 (resamples,).

    Raises ValueError on an empty or non-finite input.
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    if sample.size == 0 or not np.isfinite(sample).all():
        raise ValueError("the bootstrap needs at least one value, and only finite ones")
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    distinct, counts = np.unique(sample, return_counts=True)
    grouped = distinct.size * 4 < sample.size
    step = max(1, _CHUNK // (distinct.size if grouped else sample.size))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if grouped:
            # A metric of one relevant item has few values: drawing how often each value comes is the same
            # distribution as drawing users, at a cost that does not grow with them.
            drawn = rng.multinomial(sample.size, counts / sample.size, size=size)
            means[start : start + size] = drawn @ distinct / sample.size
        else:
            rows = rng.integers(0, sample.size, size=(size, sample.size), dtype=np.uint32)
            means[start : start + size] = sample[rows].mean(axis=1)
    return means


def bootstrap_ci(values: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95) -> Interval:
    """Percentile interval of the mean of `values` (users,)."""
    return _percentiles(bootstrap_means(values, resamples, seed), level)


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> tuple[float, Interval]:
    """Mean of `a - b` over the same users, with its paired interval. `a`, `b`: (users,) in the same order."""
    gap = _gap(a, b)
    return float(gap.mean()), bootstrap_ci(gap, resamples=resamples, seed=seed, level=level)


def paired_p_value(a: ArrayLike, b: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided bootstrap p-value of "the mean of `a - b` is zero"; at least 2 / (resamples + 1)."""
    means = bootstrap_means(_gap(a, b), resamples, seed)
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (resamples + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: reject where the result is below the wanted level."""
    count = len(p_values)
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values lie in [0, 1] (got {list(p_values)})")
    adjusted = [0.0] * count
    largest = 0.0
    for position, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (count - position) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _gap(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"a paired test needs the same users twice (got {first.shape} and {second.shape})")
    return first - second


def _percentiles(means: NDArray[Any], level: float) -> Interval:
    if not 0 < level < 1 or math.isnan(level):
        raise ValueError(f"the level lies between 0 and 1 (got {level})")
    outside = 50 * (1 - level)
    low, high = np.percentile(means, [outside, 100 - outside])
    return float(low), float(high)
