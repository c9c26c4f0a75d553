"""Intervals of ratios of times, against tables, scipy and hand-computed cases."""

import math

import numpy as np
import pytest

from benchmarks.ratios import paired, spread, student_cdf, student_quantile, unpaired


@pytest.mark.parametrize(
    ("freedom", "p", "t"), [(1, 0.975, 12.7062), (4, 0.975, 2.7764), (9, 0.975, 2.2622), (30, 0.95, 1.6973)]
)
def test_students_table(freedom: float, p: float, t: float) -> None:
    assert student_quantile(p, freedom) == pytest.approx(t, abs=5e-5)
    assert student_cdf(t, freedom) == pytest.approx(p, abs=1e-5)
    assert student_cdf(-t, freedom) == pytest.approx(1 - p, abs=1e-5)


def test_distribution_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1.0, 2.3, 9.0, 57.5):
        for t in (-40.0, -3.1, -0.2, 0.0, 0.7, 2.0, 12.0):
            assert student_cdf(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), rel=1e-9, abs=1e-14)


def test_tests_agree_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = np.exp(rng.normal(0.02, 0.05, 10)), np.exp(rng.normal(0, 0.03, 10))
    few = slice(4)  # too few to trim
    assert paired(a[few], b[few]).p_value() == pytest.approx(stats.ttest_rel(np.log(a[few]), np.log(b[few])).pvalue)
    yuen = stats.ttest_ind(np.log(a), np.log(b[:7]), equal_var=False, trim=0.2)
    assert unpaired(a, b[:7]).p_value() == pytest.approx(yuen.pvalue)
    assert min(unpaired(a, b[:7]).p_above(), unpaired(b[:7], a).p_above()) == pytest.approx(yuen.pvalue / 2)


def test_pairs_by_hand() -> None:
    # Log ratios log 2 and log 8: their mean is log 4, their standard deviation log 4 / sqrt 2, its error half of log 4.
    found = paired([2.0, 8.0], [1.0, 1.0])
    assert found.ratio == pytest.approx(4)
    assert found.error == pytest.approx(math.log(4) / 2)
    low, high = found.interval()
    assert (low, high) == (
        pytest.approx(4 ** (1 - 12.7062 / 2), rel=1e-4),
        pytest.approx(4 ** (1 + 12.7062 / 2), rel=1e-4),
    )


def test_trimmed_pairs_by_hand() -> None:
    # Of the logs 0, 1, 2, 3, 100 the middle three have mean 2; winsorized 1, 1, 2, 3, 3 have variance 1: the error is
    # sqrt(1 * 4 / (3 * 2)), with two degrees of freedom.
    found = paired(np.exp([0.0, 1.0, 2.0, 3.0, 100.0]), np.ones(5))
    assert (found.mean, found.error, found.freedom) == (pytest.approx(2), pytest.approx(math.sqrt(2 / 3)), 2)


def test_one_disturbed_round_neither_makes_a_winner_nor_hides_one() -> None:
    steady = np.array([1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99, 1.0])
    disturbed = steady * ([8.0] + [1.0] * 9)
    assert paired(disturbed, steady[::-1]).p_value() > 0.05
    assert paired(1.1 * disturbed, steady[::-1]).p_value() < 0.001


def test_what_both_rounds_share_is_no_noise() -> None:
    """A machine three times slower in the second round slows both."""
    found = paired([4.0, 12.0, 5.0], [2.0, 6.0, 2.5])
    assert found.interval() == (pytest.approx(2), pytest.approx(2))
    assert found.p_value() == 0
    assert unpaired([4.0, 12.0, 5.0], [2.0, 6.0, 2.5]).p_value() > 0.1


def test_spread_of_equal_rounds_is_none() -> None:
    assert spread([3.0, 3.0, 3.0]) == 0
    assert spread([1.0, 1.1, 0.9]) > 0.1
    assert paired([3.0, 3.0], [3.0, 3.0]).p_value() == 1
    assert paired([3.0, 3.0], [2.0, 2.0]).p_above(1.4) == paired([3.0, 3.0], [2.0, 2.0]).p_below(1.6) == 0
    assert paired([3.0, 3.0], [2.0, 2.0]).p_above(1.6) == paired([3.0, 3.0], [2.0, 2.0]).p_below(1.4) == 1


def test_a_difference_inside_the_tolerance_is_none() -> None:
    """4 % that every round shows: certain, and not worth a verdict."""
    steady = np.array([1.0, 1.001, 0.999, 1.0, 1.001])
    found = paired(1.04 * steady, steady[::-1])
    assert found.p_value() < 0.001 and found.p_value(0.05) > 0.99 and found.p_value(0.03) < 0.01
    slower = paired(steady[::-1], 1.04 * steady)
    assert slower.p_value(0.05) == pytest.approx(found.p_value(0.05))
    assert slower.p_value(0.03) == pytest.approx(found.p_value(0.03))


def test_level_holds_where_nothing_differs() -> None:
    """Two equal candidates in 1,000 tables of ten rounds: 5 % are called different, as the level says."""
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(1000):
        load = rng.normal(0, 0.3, 10)  # shared, and much larger than what tells two runs apart
        a, b = np.exp(load + rng.normal(0, 0.02, 10)), np.exp(load + rng.normal(0, 0.02, 10))
        called += paired(a, b).p_value() < 0.05
    assert 0.03 < called / 1000 < 0.065


@pytest.mark.parametrize("times", [[], [1.0], [1.0, 0.0], [1.0, -2.0]])
def test_refuses_what_has_no_interval(times: list[float]) -> None:
    with pytest.raises(ValueError, match="two rounds"):
        spread(times)
    with pytest.raises(ValueError, match="round by round"):
        paired([1.0, 2.0], [1.0, 2.0, 3.0])
