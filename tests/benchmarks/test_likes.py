"""Like/dislike metrics, by hand and against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.accuracy import auc, uauc
from benchmarks.intervals import bootstrap_ci, paired_difference
from benchmarks.likes import auc_ci, best_threshold, bootstrap_aucs, decision, summarise_likes, user_values

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


def test_user_values_average_to_the_auc_and_spread_as_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(80), rng.integers(1, 12, 80))
    labels = rng.random(len(users)) < rng.random(80)[users]
    good = labels + rng.normal(0, 0.7, len(users)) + rng.normal(0, 0.5, 80)[users]
    rough = np.round(good + rng.normal(0, 1, len(users)))
    values = [user_values(scores, labels, users) for scores in (good, rough)]
    for scores, found in zip((good, rough), values, strict=True):
        assert found.mean() == pytest.approx(auc(scores, labels)) and found.shape == (80,)
        assert bootstrap_ci(found) == pytest.approx(auc_ci(scores, labels, users), abs=0.012)
    draws = bootstrap_aucs(good, labels, users) - bootstrap_aucs(rough, labels, users)  # the same users drawn
    difference, interval = paired_difference(*values)
    assert difference == pytest.approx((auc(good, labels) or 0) - (auc(rough, labels) or 0))
    assert interval == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.012)


def test_user_values_by_hand() -> None:
    """AUC 1/2: user 1 wins its own pair and each user splits the pairs with the other; user 2 loses its own."""
    found = user_values([4, 3, 1, 2], [1, 0, 1, 0], [1, 1, 2, 2])
    # user 1's like beats both dislikes, its dislike is beaten once: 2 * (2/4 + 1/4 - 2 * 0.25) + 0.5
    assert found == pytest.approx([0.5 + 2 * (3 / 4 - 0.5), 0.5 + 2 * (1 / 4 - 0.5)])
    with pytest.raises(ValueError, match="likes and dislikes"):
        user_values([1.0], [1], [1])


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
