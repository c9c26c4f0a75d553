"""The same metric code for teachers, students, controls, baselines and peers. numpy only.

A *case* has one relevant item (its target). A model answers it with `top`, catalogue rows best first; the
target's 1-based place in it is the case's *rank*, and every ranking metric follows from ranks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.intervals import (
    Interval,
    Paired,
    bootstrap_ci,
    bootstrap_means,
    holm,
    paired_difference,
    paired_tests,
)

__all__ = [
    "Interval",
    "Paired",
    "at_once",
    "auc",
    "bootstrap_ci",
    "bootstrap_means",
    "coverage",
    "f1",
    "holm",
    "mrr",
    "ndcg",
    "paired_difference",
    "paired_tests",
    "precision",
    "ranks_of",
    "recall",
    "summarise",
    "top_rows",
    "uauc",
    "user_aucs",
]

Metrics = dict[str, float | int | list[float] | None]
Exclude = Sequence[ArrayLike] | NDArray[np.integer[Any]]

_CHUNK = 8_000_000  # scores copied at once (32 MB)
_SAMPLE = 8192

MOST_SCORES = 2**26
"""Scores held at once, 256 MB of float32: larger catalogues are ranked for fewer cases at a time."""


def at_once(n_items: int, most: int = 512) -> int:
    """How many cases are scored together: at most `most`, at least one."""
    return max(1, min(most, MOST_SCORES // (n_items + 1)))


def top_rows(scores: NDArray[np.float32], exclude: Exclude, depth: int) -> NDArray[np.int32]:
    """The best `depth` catalogue rows of each case, best first; equal scores in row order.

    `scores`: (cases, n + 1). `exclude`: per case the rows never to return, ragged or int64 (cases, m)
    padded with 0. Row 0 (padding), excluded rows and rows scored -inf are never returned.
    Returns int32 (cases, min(depth, n)); places that nothing fills are 0.
    Raises ValueError on NaN scores, rows outside the table or shapes that do not fit.
    """
    cases, width = scores.shape
    if len(exclude) != cases:
        raise ValueError(f"one list of excluded rows per case is needed (got {len(exclude)} for {cases})")
    if depth < 1 or width < 2:
        raise ValueError(f"depth and catalogue must be at least 1 (got {depth} and {width - 1})")
    depth = min(depth, width - 1)
    top = np.empty((cases, depth), dtype=np.int32)
    step = max(1, _CHUNK // width)
    for start in range(0, cases, step):
        stop = min(cases, start + step)
        chunk = np.array(scores[start:stop], dtype=np.float32)
        if np.isnan(chunk).any():
            raise ValueError(f"NaN among the scores of cases {start}..{stop - 1}")
        chunk[:, 0] = -np.inf
        where, rows = _flat(exclude[start:stop])
        if rows.size and (rows.min() < 0 or rows.max() >= width):
            raise ValueError(f"excluded rows lie in 0..{width - 1} (got {rows.min()}..{rows.max()})")
        chunk[where, rows] = -np.inf
        top[start:stop] = _best(chunk, depth)
    return top


def ranks_of(top: NDArray[np.integer[Any]], targets: ArrayLike) -> NDArray[np.int32]:
    """Place of each case's target in `top` (cases, depth), from 1; 0 where it is absent. int32 (cases,)."""
    wanted = np.asarray(targets)
    if wanted.shape != top.shape[:1] or (wanted.size and wanted.min() < 1):
        raise ValueError(f"one target row of at least 1 per case is needed (got shape {wanted.shape})")
    hits = top == wanted[:, None]
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0).astype(np.int32)


def recall(ranks: NDArray[np.int32], k: int = 10) -> NDArray[np.float64]:
    """1 where the target is among the first `k`, else 0 (one relevant item: also the hit rate). (cases,)."""
    return ((ranks > 0) & (ranks <= k)).astype(np.float64)


def precision(ranks: NDArray[np.int32], k: int = 10) -> NDArray[np.float64]:
    """Relevant share of the `k` places: 1 / k on a hit. (cases,)."""
    return recall(ranks, k) / k


def f1(ranks: NDArray[np.int32], k: int = 10) -> NDArray[np.float64]:
    """Harmonic mean of precision and recall per case: 2 / (k + 1) on a hit. (cases,)."""
    return recall(ranks, k) * 2 / (k + 1)


def ndcg(ranks: NDArray[np.int32], k: int = 10) -> NDArray[np.float64]:
    """1 / log2(1 + rank) on a hit; the ideal list puts the one relevant item first. (cases,)."""
    discount: NDArray[np.float64] = np.log2(1 + np.maximum(ranks, 1), dtype=np.float64)
    return recall(ranks, k) / discount


def mrr(ranks: NDArray[np.int32]) -> NDArray[np.float64]:
    """Reciprocal rank, 0 where the target is not in `top`. (cases,)."""
    return (ranks > 0).astype(np.float64) / np.maximum(ranks, 1)


def coverage(top: NDArray[np.integer[Any]], k: int, n_items: int) -> float:
    """Share of the catalogue that appears in at least one case's first `k`."""
    shown = np.unique(top[:, :k])
    return float((shown > 0).sum() / n_items)


def summarise(
    ranks: NDArray[np.int32], top: NDArray[np.integer[Any]], n_items: int, *, k: int = 10, seed: int = 0
) -> Metrics:
    """Means over cases under the names of `result.json`; without a case every metric is None."""
    names = (f"ndcg@{k}", f"ndcg@{k}_ci95", f"recall@{k}", f"precision@{k}", f"f1@{k}", "mrr", f"coverage@{k}")
    if not len(ranks):
        return {**dict.fromkeys(names), "auc": None, "uauc": None, "cases": 0}
    gains = ndcg(ranks, k)
    values: tuple[float | list[float], ...] = (
        float(gains.mean()),
        list(bootstrap_ci(gains, seed=seed)),
        float(recall(ranks, k).mean()),
        float(precision(ranks, k).mean()),
        float(f1(ranks, k).mean()),
        float(mrr(ranks).mean()),
        coverage(top, k, n_items),
    )
    return {**dict(zip(names, values, strict=True)), "auc": None, "uauc": None, "cases": len(ranks)}


def auc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Area under the ROC curve over all rows, a tie counting one half; None with one class only.

    `scores` float (rows,), `labels` bool or 0/1 (rows,). Source: the Mann-Whitney U statistic.
    """
    values, liked = _rows(scores, labels)
    positives = int(liked.sum())
    negatives = liked.size - positives
    if not positives or not negatives:
        return None
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    average_rank = last - (sizes - 1) / 2
    rank_sum = float(average_rank[group][liked].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def user_aucs(scores: ArrayLike, labels: ArrayLike, users: ArrayLike) -> NDArray[np.float64]:
    """The AUC of each user's own rows, in order of user id; users with one class only are left out."""
    values, liked = _rows(scores, labels)
    owners = np.asarray(users)
    if owners.shape != values.shape:
        raise ValueError(f"one user per row is needed (got {owners.shape} for {values.shape})")
    order = np.argsort(owners, kind="stable")
    edges = np.flatnonzero(np.diff(np.unique(owners[order], return_inverse=True)[1])) + 1
    groups = np.split(order, edges) if order.size else []
    found = (auc(values[group], liked[group]) for group in groups)
    return np.array([value for value in found if value is not None], dtype=np.float64)


def uauc(scores: ArrayLike, labels: ArrayLike, users: ArrayLike) -> float | None:
    """Unweighted mean of `user_aucs`; None where no user has both classes. Source: CoLLM's `uAUC_me`."""
    found = user_aucs(scores, labels, users)
    return float(found.mean()) if found.size else None


def _rows(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, marks = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.shape != marks.shape or values.ndim != 1:
        raise ValueError(f"one label per score is needed (got {marks.shape} for {values.shape})")
    if np.isnan(values).any() or not np.isin(marks, (0, 1)).all():
        raise ValueError("scores are numbers and labels are 0 or 1")
    return values, marks.astype(bool)


def _flat(exclude: Exclude) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lists = [np.asarray(rows, dtype=np.int64).ravel() for rows in exclude]
    where = np.repeat(np.arange(len(lists)), [rows.size for rows in lists])
    return where, np.concatenate(lists) if lists else np.empty(0, dtype=np.int64)


def _best(scores: NDArray[np.float32], depth: int) -> NDArray[np.int32]:
    return np.stack([_best_of(row, depth) for row in scores])


def _best_of(scores: NDArray[np.float32], depth: int) -> NDArray[np.int32]:
    """The `depth` best rows of one case, (n + 1,) scores. A partition alone keeps an arbitrary subset of the rows that
    tie at the cut, and popularity ties a lot: all above the cut, then the tied rows in row order."""
    rows = _promising(scores, depth)
    values = scores[rows]
    cut = np.partition(values, values.size - depth)[values.size - depth]
    above, tied = np.flatnonzero(values > cut), np.flatnonzero(values == cut)
    kept = np.sort(np.concatenate([above, tied[: depth - above.size]]))
    rows, values = rows[kept], values[kept]
    order = np.argsort(-values, kind="stable")
    return np.where(np.isneginf(values[order]), 0, rows[order]).astype(np.int32)


def _promising(scores: NDArray[np.float32], depth: int) -> NDArray[np.int64]:
    """Rows in order, among them the `depth` best with all that tie with the last: those that reach what a sample of
    every `stride`-th score says some more than `depth` reach, or all where the sample misleads."""
    stride = scores.size // _SAMPLE
    if stride > 3:
        sample = scores[::stride]
        share = depth / stride
        place = int(share + 3 * share**0.5) + 8  # three standard deviations more
        if place < sample.size:
            rows = np.flatnonzero(scores >= np.partition(sample, sample.size - place)[sample.size - place])
            if rows.size >= depth:
                return rows
    return np.arange(scores.size)
