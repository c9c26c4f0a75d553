"""The bootstrap against theory, and Holm by hand."""

import time

import numpy as np
import pytest

from benchmarks.intervals import bootstrap_ci, bootstrap_means, holm, paired_difference, paired_tests


def test_interval_of_a_proportion_matches_the_normal_approximation() -> None:
    hits = np.repeat([1.0, 0.0], [300, 700])
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert bootstrap_ci(hits) == pytest.approx((0.3 - half, 0.3 + half), abs=0.003)


def test_grouped_and_plain_resampling_have_the_same_distribution() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 11, size=500) / 10  # 11 distinct values: grouped
    noise = rng.normal(0, 1e-9, size=500)  # all distinct: users are drawn
    grouped, plain = bootstrap_means(values, 20_000), bootstrap_means(values + noise, 20_000)
    assert grouped.std() == pytest.approx(plain.std(), rel=0.03)
    assert grouped.std() == pytest.approx(values.std() / np.sqrt(500), rel=0.03)
    assert np.percentile(grouped, [2.5, 97.5]) == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.003)


def test_seeded() -> None:
    values = np.random.default_rng(0).random(50)
    assert bootstrap_ci(values, seed=1) == bootstrap_ci(values, seed=1)
    assert bootstrap_ci(values, seed=1) != bootstrap_ci(values, seed=2)


def test_a_constant_has_a_point_interval() -> None:
    assert bootstrap_ci([0.5] * 10) == pytest.approx((0.5, 0.5))
    assert bootstrap_ci([0.5]) == pytest.approx((0.5, 0.5))


def test_pairing_removes_what_users_share() -> None:
    rng = np.random.default_rng(0)
    easy = rng.random(400)
    difference, (low, high) = paired_difference(easy + 0.02 + rng.normal(0, 0.01, 400), easy)
    assert difference == pytest.approx(0.02, abs=0.002)
    assert 0 < low < difference < high < 0.03
    unpaired = bootstrap_ci(easy)
    assert unpaired[1] - unpaired[0] > 10 * (high - low)


def test_p_value() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 400)
    pairs = [(noise + 1, np.zeros(400)), (noise - noise.mean(), np.zeros(400)), (np.ones(5), np.ones(5))]
    first, second, third = (test.p for test in paired_tests(pairs))
    assert first == 2 / 4001
    assert second > 0.5
    assert third == 1.0


def test_pairs_together_are_what_each_is_alone() -> None:
    """Also where some are drawn by value, some by user, and not all over equally many users."""
    rng = np.random.default_rng(0)
    pairs = [(rng.random(n), rng.random(n)) for n in (300, 300, 200)]
    pairs.append((rng.integers(0, 3, 300) / 2, np.zeros(300)))
    together = paired_tests(pairs)
    for (a, b), test in zip(pairs, together, strict=True):
        difference, interval = paired_difference(a, b)
        assert test.difference == difference
        assert test.ci95 == pytest.approx(interval, rel=1e-12)
        assert test.p == paired_tests([(a, b)])[0].p
    assert paired_tests([]) == []


def test_users_must_be_the_same() -> None:
    with pytest.raises(ValueError, match="same users"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_ci([])


def test_a_hundred_thousand_users_are_quick() -> None:
    """Of few values, of as many as the mean of three seeds has, and all different; eight pairs of those cost little
    more than one."""
    rng = np.random.default_rng(0)
    seeds = 1 / np.log2(1 + rng.integers(1, 12, size=(6, 100_000)))
    values = seeds[0]
    start = time.process_time()
    low, high = bootstrap_ci(values)
    assert time.process_time() - start < 2
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(100_000), rel=0.05)
    mean = seeds[:3].mean(axis=0) - seeds[3:].mean(axis=0)  # a quarter of the values differ: users are drawn
    start = time.process_time()
    tests = paired_tests([(mean, np.zeros(100_000)), *((rng.random(100_000), mean) for _ in range(7))], resamples=400)
    assert time.process_time() - start < 2
    low, high = tests[0].ci95
    assert high - low == pytest.approx(2 * 1.96 * mean.std() / np.sqrt(100_000), rel=0.15)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="p-values"):
        holm([1.5])
