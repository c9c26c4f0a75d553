"""How sure a number is: percentile bootstrap over users, paired differences, Holm's correction.

Method: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile interval) and
chapter 16 (p-value); S. Holm, A Simple Sequentially Rejective Multiple Test Procedure (1979).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]

RESAMPLES = 4000
_CHUNK = 4_000_000  # draws held in memory at once (32 MB)
_MANY = 8192


def bootstrap_means(values: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """Means of `resamples` samples drawn with replacement from `values` (users,) -> float64 (resamples,).

    Raises ValueError on an empty or non-finite input.
    """
    sample = _finite(values)
    distinct, counts = np.unique(sample, return_counts=True)
    if not _is_grouped(distinct.size, sample.size):
        return _means_of_users(sample[:, None], resamples, seed).ravel()
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _CHUNK // distinct.size)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.multinomial(sample.size, counts / sample.size, size=size)
        means[start : start + size] = drawn @ distinct / sample.size
    return means


def bootstrap_ci(values: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95) -> Interval:
    """Percentile interval of the mean of `values` (users,)."""
    return _percentiles(bootstrap_means(values, resamples, seed), level)


@dataclass(frozen=True)
class Paired:
    """`a - b` over the same users: its mean, the percentile interval of it, and the two-sided bootstrap p-value of "the
    mean is zero", at least 2 / (resamples + 1)."""

    difference: float
    ci95: Interval
    p: float


def paired_tests(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Paired]:
    """Each pair (a, b), (users,) in the same order, tested on one set of resamples.

    Pairs over equally many users share the draws, as they would one by one from the same seed: what a draw costs is
    paid once. 4,000 resamples of 100,000 users take seconds, however many pairs there are.
    """
    gaps = [_finite(_gap(a, b)) for a, b in pairs]
    means: list[NDArray[np.float64] | None] = [None] * len(gaps)
    apart: dict[int, list[int]] = {}
    for number, gap in enumerate(gaps):
        if _is_grouped(np.unique(gap).size, gap.size):
            means[number] = bootstrap_means(gap, resamples, seed)
        else:
            apart.setdefault(gap.size, []).append(number)
    for numbers in apart.values():
        found = _means_of_users(np.stack([gaps[number] for number in numbers], axis=1), resamples, seed)
        for number, own in zip(numbers, found, strict=True):
            means[number] = own
    return [_paired(gap, own) for gap, own in zip(gaps, means, strict=True) if own is not None]


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> tuple[float, Interval]:
    """Mean of `a - b` over the same users, with its paired interval. `a`, `b`: (users,) in the same order."""
    gap = _gap(a, b)
    return float(gap.mean()), bootstrap_ci(gap, resamples=resamples, seed=seed, level=level)


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


def _is_grouped(distinct: int, size: int) -> bool:
    """Whether to draw how often each value comes, the same distribution as drawing users: a metric of one relevant item
    has few values. Drawing one value's count takes as long as drawing a dozen users."""
    return distinct * (4 if size < _MANY else 12) < size


def _means_of_users(samples: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """The means of drawn users, (samples, resamples), of samples (users, samples) that share the draws."""
    rng = np.random.default_rng(seed)
    users, several = samples.shape
    means = np.empty((several, resamples))
    step = max(1, _CHUNK // users)
    gathered = np.empty((step, users))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        rows = rng.integers(0, users, size=(size, users), dtype=np.uint32)
        if several == 1:
            samples[:, 0].take(rows, mode="clip", out=gathered[:size])
            means[0, start : start + size] = gathered[:size].mean(axis=1)
        else:
            for place, drawn in enumerate(rows):
                gathered[place] = np.bincount(drawn, minlength=users)
            means[:, start : start + size] = (gathered[:size] @ samples).T / users
    return means


def _paired(gap: NDArray[np.float64], means: NDArray[np.float64]) -> Paired:
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Paired(float(gap.mean()), _percentiles(means, 0.95), min(1.0, 2 * (tail + 1) / (len(means) + 1)))


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64).ravel()
    if sample.size == 0 or not np.isfinite(sample).all():
        raise ValueError("the bootstrap needs at least one value, and only finite ones")
    return sample


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
