"""Latency in interleaved rounds of one process. Torch-free; raw values are kept."""

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WINDOW = 5  # runs whose median says whether warm-up has settled
_SETTLED = 0.05  # two windows this close, relatively
_REFILL = 2  # untimed runs at the start of a block: the caches held the previous candidate


@dataclass(frozen=True)
class Latency:
    """Raw times of one candidate: `samples_ms` float64 (runs,), `rounds` int64 (runs,), the round of each."""

    samples_ms: NDArray[np.float64]
    rounds: NDArray[np.int64]
    batch: int = 1

    @property
    def runs(self) -> int:
        return len(self.samples_ms)

    @property
    def p50_ms(self) -> float:
        return self.percentile(50)

    @property
    def p95_ms(self) -> float:
        return self.percentile(95)

    @property
    def p99_ms(self) -> float:
        return self.percentile(99)

    @property
    def per_second(self) -> float:
        """Histories answered per second, by the mean time."""
        return self.batch * 1000 / float(self.samples_ms.mean())

    def percentile(self, q: float) -> float:
        """The q-th percentile in milliseconds."""
        return float(np.percentile(self.samples_ms, q))

    def round_medians(self) -> NDArray[np.float64]:
        """Median of each round in milliseconds, (rounds,)."""
        return np.array([np.median(self.samples_ms[self.rounds == r]) for r in np.unique(self.rounds)])


@dataclass(frozen=True)
class Speedup:
    """Reference time / candidate time (above 1: the candidate is faster), one value per round.

    The rounds of one process share its load, so the extremes estimate the noise of the ratio.
    """

    median: float
    low: float
    high: float


def latency(
    cases: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 5,
    min_runs: int = 1000,
    min_seconds: float = 10.0,
    warmup_seconds: float = 2.0,
    batch: int = 1,
    seed: int = 0,
) -> dict[str, Latency]:
    """Times every case in `rounds` rounds, the order drawn anew in each.

    A case is done after `min_runs` runs or `min_seconds` seconds, whichever comes first, spread evenly over the
    rounds and at least one run each. Warm-up lasts until two windows of runs agree within 5 %, at most
    `warmup_seconds`. `batch`: histories per call. The garbage collector rests while a block is timed.
    """
    if rounds < 1 or min_runs < 1:
        raise ValueError(f"at least one round and one run are needed (got {rounds} and {min_runs})")
    order = list(cases)
    draw = random.Random(seed)
    for name in order:
        _warm_up(cases[name], warmup_seconds)
    samples: dict[str, list[list[float]]] = {name: [] for name in order}
    for _ in range(rounds):
        draw.shuffle(order)
        for name in order:
            samples[name].append(_block(cases[name], -(-min_runs // rounds), min_seconds / rounds))
    return {name: _collect(samples[name], batch) for name in cases}


def speedup(reference: Latency, candidate: Latency) -> Speedup:
    """How many times faster `candidate` is, round by round of the same `latency` call."""
    ratios = reference.round_medians() / candidate.round_medians()
    return Speedup(statistics.median(ratios.tolist()), float(ratios.min()), float(ratios.max()))


def _warm_up(call: Callable[[], object], limit_s: float) -> None:
    stop = time.perf_counter() + limit_s
    previous = float("inf")
    while True:
        window = [_once(call) for _ in range(_WINDOW)]
        median = statistics.median(window)
        if abs(median - previous) <= _SETTLED * median or time.perf_counter() > stop:
            return
        previous = median


def _block(call: Callable[[], object], runs: int, limit_s: float) -> list[float]:
    for _ in range(_REFILL):
        call()
    times: list[float] = []
    collected = gc.isenabled()
    gc.disable()
    try:
        stop = time.perf_counter() + limit_s
        while len(times) < runs:
            times.append(_once(call))
            if time.perf_counter() > stop:
                break
    finally:
        if collected:
            gc.enable()
    return times


def _once(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def _collect(blocks: list[list[float]], batch: int) -> Latency:
    rounds = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    return Latency(np.concatenate([np.array(block) for block in blocks]), rounds, batch)
