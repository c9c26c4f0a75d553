"""Metrics against hand-computed cases and against brute force."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks import accuracy

RANKS = np.array([1, 3, 11, 0], dtype=np.int32)


def test_one_relevant_item_by_hand() -> None:
    assert accuracy.ndcg(RANKS).tolist() == [1.0, 0.5, 0.0, 0.0]
    assert accuracy.recall(RANKS).tolist() == [1, 1, 0, 0]
    assert accuracy.precision(RANKS).tolist() == [0.1, 0.1, 0, 0]
    assert accuracy.f1(RANKS) == pytest.approx([2 / 11, 2 / 11, 0, 0])
    assert accuracy.mrr(RANKS) == pytest.approx([1, 1 / 3, 1 / 11, 0])
    assert accuracy.ndcg(RANKS, 11)[2] == pytest.approx(1 / math.log2(12))


def test_top_rows_by_hand() -> None:
    scores = np.array([[9, 1, 5, 3, 5], [9, 4, 3, 2, 1]], dtype=np.float32)
    before = scores.copy()
    top = accuracy.top_rows(scores, [[2], [1, 2, 3]], depth=3)
    assert top.tolist() == [[4, 3, 1], [4, 0, 0]]
    assert top.dtype == np.int32
    assert (scores == before).all()


def test_padded_and_ragged_exclusions_agree() -> None:
    scores = np.arange(12, dtype=np.float32).reshape(2, 6)
    padded = np.array([[0, 5], [3, 4]], dtype=np.int64)
    assert (accuracy.top_rows(scores, padded, 4) == accuracy.top_rows(scores, [[5], [3, 4]], 4)).all()


def test_infinite_scores() -> None:
    scores = np.array([[0, -np.inf, np.inf, 1]], dtype=np.float32)
    assert accuracy.top_rows(scores, [[]], 10).tolist() == [[2, 3, 0]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 15))
def test_top_rows_equals_a_stable_sort(seed: int, items: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, size=(5, items + 1)).astype(np.float32)  # few values: many ties
    exclude = [rng.integers(0, items + 1, size=rng.integers(0, items + 1)) for _ in range(5)]
    top = accuracy.top_rows(scores, exclude, depth)
    for case in range(5):
        allowed = [row for row in range(1, items + 1) if row not in exclude[case]]
        expected = sorted(allowed, key=lambda row, case=case: -scores[case, row])[:depth]
        assert top[case][top[case] > 0].tolist() == expected
        assert (top[case][len(expected) :] == 0).all()


@pytest.mark.parametrize("kind", ["any", "ties", "rising", "misled", "few"])
def test_a_large_catalogue_is_ranked_as_a_stable_sort_does(kind: str) -> None:
    """A sample finds the promising rows; where every sampled row misleads, all are looked at."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 90_001)).astype(np.float32)
    if kind == "ties":
        scores = np.round(scores)
    elif kind == "rising":
        scores = np.sort(scores, axis=1)
    elif kind == "misled":
        scores[:, :: 90_001 // 8192] = 99
        scores[:, 1:1000] = 100
    elif kind == "few":
        scores[:, 50:] = -np.inf
    for depth in (1, 10, 1000):
        expected = np.argsort(-scores[:, 1:], axis=1, kind="stable")[:, :depth] + 1
        expected[np.isneginf(np.take_along_axis(scores, expected, axis=1))] = 0
        assert (accuracy.top_rows(scores, [[], []], depth) == expected).all()


def test_top_rows_over_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(1).random((7, 9)).astype(np.float32)
    exclude = [[row + 1] for row in range(7)]
    whole = accuracy.top_rows(scores, exclude, 5)
    monkeypatch.setattr(accuracy, "_CHUNK", 20)
    assert (accuracy.top_rows(scores, exclude, 5) == whole).all()


@pytest.mark.parametrize(
    ("scores", "exclude", "depth", "message"),
    [
        ([[0, math.nan]], [[]], 1, "NaN"),
        ([[0, 1]], [], 1, "per case"),
        ([[0, 1]], [[2]], 1, "excluded rows"),
        ([[0, 1]], [[-1]], 1, "excluded rows"),
        ([[0, 1]], [[]], 0, "depth"),
    ],
)
def test_top_rows_refuses(scores: list[list[float]], exclude: list[list[int]], depth: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accuracy.top_rows(np.array(scores, dtype=np.float32), exclude, depth)


def test_ranks_of() -> None:
    top = np.array([[4, 3, 1], [4, 0, 0], [2, 5, 1]], dtype=np.int32)
    assert accuracy.ranks_of(top, [3, 9, 2]).tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="at least 1"):
        accuracy.ranks_of(top, [3, 0, 2])


def test_coverage_ignores_padding() -> None:
    top = np.array([[1, 2, 9], [2, 0, 0]], dtype=np.int32)
    assert accuracy.coverage(top, 2, n_items=8) == 0.25


def test_summarise() -> None:
    top = np.zeros((4, 11), dtype=np.int32)
    top[:, 0] = [1, 2, 3, 4]
    found = accuracy.summarise(RANKS, top, n_items=20)
    assert found["ndcg@10"] == 0.375
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 11) / 4)
    assert found["coverage@10"] == 0.2
    assert found["cases"] == 4
    low, high = found["ndcg@10_ci95"]  # type: ignore[misc]
    assert low < 0.375 < high


def test_summarise_without_cases() -> None:
    found = accuracy.summarise(RANKS[:0], np.zeros((0, 3), dtype=np.int32), n_items=3)
    assert found.pop("cases") == 0
    assert set(found.values()) == {None}
    assert "ndcg@10_ci95" in found


def brute_auc(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float | None:
    pairs = [
        1.0 if liked > not_liked else 0.5 if liked == not_liked else 0.0
        for liked in scores[labels == 1]
        for not_liked in scores[labels == 0]
    ]
    return sum(pairs) / len(pairs) if pairs else None


def test_auc_by_hand() -> None:
    assert accuracy.auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
    assert accuracy.auc([1, 1, 1], [0, 1, 1]) == 0.5
    assert accuracy.auc([1, 2], [1, 1]) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=40))
def test_auc_equals_counting_pairs(rows: list[tuple[int, int, int]]) -> None:
    scores, labels, users = (np.array(column) for column in zip(*rows, strict=True))
    expected = brute_auc(scores, labels)
    assert accuracy.auc(scores, labels) == (None if expected is None else pytest.approx(expected))
    per_user = [brute_auc(scores[users == user], labels[users == user]) for user in np.unique(users)]
    counted = [value for value in per_user if value is not None]
    assert accuracy.user_aucs(scores, labels, users) == pytest.approx(counted)
    mean = accuracy.uauc(scores, labels, users)
    assert mean == (pytest.approx(np.mean(counted)) if counted else None)


def test_auc_refuses_other_labels() -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        accuracy.auc([0.5, 0.1], [1, 2])
