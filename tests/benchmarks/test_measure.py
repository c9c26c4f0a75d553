"""Timing against a clock that the test holds."""

import gc
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks import measure
from benchmarks.measure import Latency, latency, speedup


class Clock:
    """Advances only when told to."""

    def __init__(self) -> None:
        self.ns = 0

    def perf_counter_ns(self) -> int:
        return self.ns

    def perf_counter(self) -> float:
        return self.ns / 1e9

    def work(self, ms: float) -> Callable[[], None]:
        def call() -> None:
            self.ns += round(ms * 1e6)

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    return clock


def test_exact_times_and_ratios(clock: Clock) -> None:
    found = latency({"slow": clock.work(6), "fast": clock.work(2)}, rounds=5, min_runs=20, batch=4)
    assert list(found) == ["slow", "fast"]
    assert found["slow"].p50_ms == found["slow"].p99_ms == 6
    assert found["fast"].runs == 20
    assert found["fast"].per_second == 2000
    ratio = speedup(found["slow"], found["fast"])
    assert (ratio.median, ratio.low, ratio.high) == (3, 3, 3)


def test_time_ends_what_runs_do_not(clock: Clock) -> None:
    found = latency({"slow": clock.work(600)}, rounds=5, min_runs=1000, min_seconds=10)
    assert found["slow"].runs == 20  # four of .6 s pass the 2 s of a round
    assert found["slow"].rounds.tolist() == sorted([0, 1, 2, 3, 4] * 4)


def test_every_round_runs_every_case_in_a_drawn_order(clock: Clock) -> None:
    calls: list[str] = []

    def note(name: str) -> Callable[[], None]:
        def call() -> None:
            clock.ns += 1_000_000
            calls.append(name)

        return call

    cases = {name: note(name) for name in "abc"}
    latency(cases, rounds=8, min_runs=8, seed=1)
    per_round = 3  # two untimed runs, one timed
    blocks = [calls[-24 * per_round :][start] for start in range(0, 24 * per_round, per_round)]
    orders = ["".join(blocks[start : start + 3]) for start in range(0, 24, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(set(orders)) > 1
    first, calls[:] = list(calls), []
    latency(cases, rounds=8, min_runs=8, seed=1)
    assert calls == first


def test_warm_up_lasts_until_the_times_settle(clock: Clock) -> None:
    costs = iter([100.0] * 5 + [50.0] * 5 + [10.0] * 1000)

    def call() -> None:
        clock.ns += round(next(costs) * 1e6)

    found = latency({"case": call}, rounds=1, min_runs=50)
    assert found["case"].samples_ms.max() == 10


def test_garbage_collection_rests_and_resumes() -> None:
    seen: list[bool] = []
    latency({"case": lambda: seen.append(gc.isenabled())}, rounds=1, min_runs=3, warmup_seconds=0)
    assert seen[-3:] == [False] * 3
    assert gc.isenabled()


def test_ratios_are_taken_round_by_round() -> None:
    # Both are three times slower in the second round: the ratio does not notice.
    rounds = np.array([0, 0, 1, 1])
    slow = Latency(np.array([4.0, 4.0, 12.0, 12.0]), rounds)
    fast = Latency(np.array([2.0, 2.0, 6.0, 6.0]), rounds)
    assert speedup(slow, fast).low == speedup(slow, fast).high == 2


def test_refuses_nothing_to_do() -> None:
    with pytest.raises(ValueError, match="at least one round"):
        latency({}, rounds=0)
