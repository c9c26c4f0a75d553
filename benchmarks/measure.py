"""Latency in interleaved rounds of one process. Torch-free; raw values are kept.

Warm-up lasts until three windows of five runs in a row have medians within 5 % of each other, or its time is over.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WINDOW, _WINDOWS = 5, 3  # runs whose median counts, and how many medians in a row must agree
_SETTLED = 0.05  # medians this close, relatively
_REFILL = 2  # untimed runs at the start of a block: the caches held the previous candidate


PERCENTILES = (1, 5, 25, 75)
"""What a record keeps of a distribution beside p50, p95 and p99."""


def percentiles(samples_ms: NDArray[np.float64]) -> dict[int, float]:
    """Percentile -> milliseconds of raw times (runs,)."""
    return dict(zip(PERCENTILES, np.percentile(samples_ms, PERCENTILES).tolist(), strict=True))


@dataclass(frozen=True)
class Latency:
    """Raw times of one candidate: `samples_ms` float64 (runs,), `rounds` int64 (runs,), the round of each.

    `unsettled`: how many warm-ups ended because their time was over.
    """

    samples_ms: NDArray[np.float64]
    rounds: NDArray[np.int64]
    batch: int = 1
    unsettled: int = 0

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


Call = Callable[[], object]
Opener = Callable[[], Call]
"""Opens what is timed (a session, say) and returns what asks it."""


@dataclass(frozen=True)
class Case:
    """What `reopened` times. `batch`: histories per call."""

    open: Opener
    batch: int = 1


def latency(
    cases: Mapping[str, Call],
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
    rounds and at least one run each. Each warms up once, at most `warmup_seconds`. `batch`: histories per call. The
    garbage collector rests while a block is timed.
    """
    settled = {name: _warm_up(call, warmup_seconds) for name, call in cases.items()}

    def block(name: str, runs: int, limit_s: float) -> tuple[list[float], bool]:
        for _ in range(_REFILL):
            cases[name]()
        return _timed(cases[name], runs, limit_s), True

    blocks = _interleaved(list(cases), block, rounds, min_runs, min_seconds, seed)
    return {name: _collect(found, batch, int(not settled[name])) for name, found in blocks.items()}


def reopened(
    cases: Mapping[str, Case],
    *,
    rounds: int = 10,
    min_runs: int = 1000,
    min_seconds: float = 10.0,
    seed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Latency]:
    """As `latency`, each case opened, warmed up and closed again in every round.

    Where a session's memory happens to lie moves its times by some percent (T. Mytkowicz et al., Producing Wrong Data
    Without Doing Anything Obviously Wrong!, ASPLOS 2009). Opened once, that luck would be a constant which no round
    shows; opened anew, it is part of the noise. One case is open at a time: neither memory nor threads of others are in
    its way. A block warms up for at most half of its timed seconds. `progress` is called after each block.
    """

    def block(name: str, runs: int, limit_s: float) -> tuple[list[float], bool]:
        call = cases[name].open()
        settled = _warm_up(call, limit_s / 2)
        times = _timed(call, runs, limit_s)
        progress()
        return times, settled

    blocks = _interleaved(list(cases), block, rounds, min_runs, min_seconds, seed)
    return {name: _collect(found, cases[name].batch) for name, found in blocks.items()}


_Block = tuple[list[float], bool]
"""Milliseconds, and whether the warm-up before them settled."""


def _interleaved(
    names: list[str],
    block: Callable[[str, int, float], _Block],
    rounds: int,
    min_runs: int,
    min_seconds: float,
    seed: int,
) -> dict[str, list[_Block]]:
    if rounds < 1 or min_runs < 1:
        raise ValueError(f"at least one round and one run are needed (got {rounds} and {min_runs})")
    draw, order = random.Random(seed), list(names)
    blocks: dict[str, list[_Block]] = {name: [] for name in names}
    for _ in range(rounds):
        draw.shuffle(order)
        for name in order:
            blocks[name].append(block(name, -(-min_runs // rounds), min_seconds / rounds))
    return blocks


def speedup(reference: Latency, candidate: Latency) -> Speedup:
    """How many times faster `candidate` is, round by round of the same `latency` call."""
    ratios = reference.round_medians() / candidate.round_medians()
    return Speedup(statistics.median(ratios.tolist()), float(ratios.min()), float(ratios.max()))


def _warm_up(call: Call, limit_s: float) -> bool:
    """Whether the times settled before `limit_s` seconds were over."""
    stop = time.perf_counter() + limit_s
    medians: list[float] = []
    while True:
        medians.append(statistics.median(_once(call) for _ in range(_WINDOW)))
        last = medians[-_WINDOWS:]
        if len(last) == _WINDOWS and max(last) - min(last) <= _SETTLED * max(last):
            return True
        if time.perf_counter() > stop:
            return False


def _timed(call: Call, runs: int, limit_s: float) -> list[float]:
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


def _once(call: Call) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def _collect(blocks: list[_Block], batch: int, unsettled: int = 0) -> Latency:
    rounds = np.repeat(np.arange(len(blocks)), [len(times) for times, _ in blocks])
    samples = np.concatenate([np.array(times) for times, _ in blocks])
    return Latency(samples, rounds, batch, unsettled + sum(not settled for _, settled in blocks))
