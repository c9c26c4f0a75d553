"""Like/dislike metrics, by hand and against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.accuracy import auc, uauc
from benchmarks.likes import best_threshold, bootstrap_aucs, decision, paired_auc, paired_uauc, summarise_likes

LABELS = [1, 0, 1, 0, 1, 0]
USERS = [7, 7, 8, 8, 9, 9]


def test_auc_and_uauc_by_hand() -> None:
    """Over all rows 9 pairs: 4 won, 4 lost, 1 tied; user 7 wins, 8 ties, 9 loses."""
    scores = [0.9, 0.1, 0.5, 0.5, 0.2, 0.8]
    assert auc(scores, LABELS) == pytest.approx((3 + 1 + 0.5 + 1) / 9)
    assert uauc(scores, LABELS, USERS) == pytest.approx((1 + 0.5 + 0) / 3)


def test_users_with_one_class_are_left_out_of_uauc_and_counted_by_auc() -> None:
    scores, labels, users = [0.9, 0.1, 0.3, 0.2], [1, 0, 1, 1], [1, 1, 2, 2]
    found = summarise_likes(scores, labels, users, 0.25)
    assert found["uauc"] == 1.0 and found["uauc_users"] == 1 and found["auc"] == 1.0 and found["cases"] == 4


def test_the_bootstrap_draws_users_with_all_their_rows() -> None:
    """User 1 alone gives AUC 1, user 2 alone 0, both together by hand 1/2: no draw can give anything else."""
    scores, labels, users = [4, 3, 1, 2], [1, 0, 1, 0], [1, 1, 2, 2]
    draws = bootstrap_aucs(scores, labels, users, resamples=400)
    assert set(np.unique(draws)) == {0.0, 0.5, 1.0}
    assert abs((draws == 0.5).mean() - 0.5) < 0.1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=30))
def test_a_draw_of_one_user_is_the_auc_itself(rows: list[tuple[int, bool]]) -> None:
    scores, labels = [score for score, _ in rows], [label for _, label in rows]
    found = bootstrap_aucs(scores, labels, [0] * len(rows), resamples=2)
    wanted = auc(scores, labels)
    assert np.isnan(found).all() if wanted is None else found == pytest.approx(wanted)


def test_a_paired_difference_is_of_the_same_users() -> None:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(50), 8)
    labels = rng.random(400) < 0.5
    good, noise = labels + rng.normal(0, 0.5, 400), rng.normal(size=400)
    difference, (low, high), p = paired_auc([good], [noise], labels, users)
    assert difference == pytest.approx((auc(good, labels) or 0) - (auc(noise, labels) or 0))
    assert low > 0.2 and low < difference < high and p < 0.01
    assert paired_auc([good], [good], labels, users)[:2] == (0.0, (0.0, 0.0))
    own = paired_uauc([good], [noise], labels, users)
    assert own is not None and own[1][0] > 0.2
    assert paired_uauc([good], [noise], labels, np.arange(400)) is None


def test_seeds_are_averaged_before_the_difference() -> None:
    labels, users = [1, 0, 1, 0], [1, 1, 2, 2]
    right, wrong = [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]
    assert paired_auc([right, wrong], [wrong], labels, users)[0] == 0.5


def test_the_threshold_makes_the_most_rows_right() -> None:
    scores, labels = [0.1, 0.2, 0.3, 0.4, 0.5], [0, 1, 0, 1, 1]
    assert best_threshold(scores, labels) == pytest.approx(0.15)  # 4 right, as 0.35 gives; the lowest such
    assert decision(scores, labels, 0.35) == pytest.approx(
        {"accuracy": 0.8, "precision": 1.0, "recall": 2 / 3, "f1": 0.8}
    )
    assert best_threshold([0.1, 0.2], [1, 1]) == 0.1
    assert decision([0.1, 0.2], [0, 0], best_threshold([0.1, 0.2], [0, 0])) == {
        "accuracy": 1.0,
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
    }


def test_rows_must_fit_together() -> None:
    with pytest.raises(ValueError, match="one score, label and user per row"):
        bootstrap_aucs([1.0, 2.0], [1, 0], [1])
