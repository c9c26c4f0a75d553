"""How well like/dislike scores tell likes from the rest: AUC and UAUC with intervals over users, and the decision.

AUC is one ROC over all rows; UAUC the unweighted mean of the AUCs of users who have both labels. numpy only.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.accuracy import auc, user_aucs
from benchmarks.intervals import Interval, bootstrap_ci, paired_difference, paired_p_value

RESAMPLES = 2000
_CHUNK = 4_000_000  # row weights held at once (32 MB)

Metrics = dict[str, float | int | list[float] | None]


def bootstrap_aucs(
    scores: ArrayLike, labels: ArrayLike, users: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """AUC over the rows of users drawn with replacement -> float64 (resamples,), NaN where a draw has one class only.

    `scores`, `labels`, `users`: (rows,). The same seed draws the same users, so that two models' AUCs can be paired.
    """
    values, liked = np.asarray(scores, np.float64), np.asarray(labels, bool)
    _, owner = np.unique(np.asarray(users), return_inverse=True)
    n_users = int(owner.max()) + 1 if owner.size else 0
    if not n_users or values.shape != liked.shape or values.shape != owner.shape:
        raise ValueError(f"one score, label and user per row are needed (got {values.shape}, {liked.shape})")
    order = np.argsort(values, kind="stable")
    owner, liked = owner[order], liked[order].astype(np.float64)
    ties = np.flatnonzero(np.concatenate([[True], np.diff(values[order]) > 0]))
    rng = np.random.default_rng(seed)
    found = np.empty(resamples)
    step = max(1, _CHUNK // len(owner))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        weights = rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=size)[:, owner].astype(np.float64)
        positive = np.add.reduceat(weights * liked, ties, axis=1)
        negative = np.add.reduceat(weights * (1 - liked), ties, axis=1)
        below = np.cumsum(negative, axis=1) - negative / 2  # a tie counts one half
        pairs = positive.sum(1) * negative.sum(1)
        wins = (positive * below).sum(1)
        found[start : start + size] = np.divide(wins, pairs, out=np.full(size, np.nan), where=pairs > 0)
    return found


def auc_ci(scores: ArrayLike, labels: ArrayLike, users: ArrayLike, *, seed: int = 0) -> Interval:
    """95 % percentile interval of the AUC over users."""
    low, high = np.nanpercentile(bootstrap_aucs(scores, labels, users, seed=seed), [2.5, 97.5])
    return float(low), float(high)


def paired_auc(
    a: Sequence[ArrayLike], b: Sequence[ArrayLike], labels: ArrayLike, users: ArrayLike, *, seed: int = 0
) -> tuple[float, Interval, float]:
    """AUC of `a` minus that of `b`, its 95 % interval over users and two-sided p-value; each averaged over its seeds.

    `a`, `b`: one array of scores (rows,) per seed.
    """
    points = [np.mean([auc(scores, labels) for scores in seeds]) for seeds in (a, b)]
    draws = [np.mean([bootstrap_aucs(s, labels, users, seed=seed) for s in seeds], axis=0) for seeds in (a, b)]
    gap = draws[0] - draws[1]
    gap = gap[np.isfinite(gap)]
    low, high = np.percentile(gap, [2.5, 97.5])
    tail = min(int((gap <= 0).sum()), int((gap >= 0).sum()))
    return float(points[0] - points[1]), (float(low), float(high)), min(1.0, 2 * (tail + 1) / (len(gap) + 1))


def paired_uauc(
    a: Sequence[ArrayLike], b: Sequence[ArrayLike], labels: ArrayLike, users: ArrayLike, *, seed: int = 0
) -> tuple[float, Interval, float] | None:
    """The same of UAUC; None where no user has both labels."""
    first, second = (np.mean([user_aucs(scores, labels, users) for scores in seeds], axis=0) for seeds in (a, b))
    if not first.size:
        return None
    difference, interval = paired_difference(first, second, seed=seed)
    return difference, interval, paired_p_value(first, second, seed=seed)


def best_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """The lowest score to call a like so that the most rows are right; between two scores, halfway."""
    values, liked = np.asarray(scores, np.float64), np.asarray(labels, bool)
    distinct, group = np.unique(values, return_inverse=True)
    gain = np.bincount(group, np.where(liked, 1.0, -1.0), minlength=len(distinct))
    # right answers when everything from distinct[i] on is called a like, against calling nothing one
    right = np.concatenate([np.cumsum(gain[::-1])[::-1], [0.0]])
    best = int(np.argmax(right))
    if best == 0:
        return float(distinct[0])
    if best == len(distinct):
        return float(np.nextafter(distinct[-1], np.inf))
    return float((distinct[best - 1] + distinct[best]) / 2)


def decision(scores: ArrayLike, labels: ArrayLike, threshold: float) -> dict[str, float]:
    """Accuracy, precision, recall and F1 of calling every score of at least `threshold` a like; 0 where undefined."""
    said, liked = np.asarray(scores, np.float64) >= threshold, np.asarray(labels, bool)
    hits = int((said & liked).sum())
    precision = hits / int(said.sum()) if said.any() else 0.0
    recall = hits / int(liked.sum()) if liked.any() else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {"accuracy": float((said == liked).mean()), "precision": precision, "recall": recall, "f1": f1}


def summarise_likes(
    scores: ArrayLike, labels: ArrayLike, users: ArrayLike, threshold: float, *, seed: int = 0
) -> Metrics:
    """All metrics of a set of rows under the names of `result.json`; `uauc` is None where no user has both labels.

    `threshold` is chosen on validation rows.
    """
    own = user_aucs(scores, labels, users)
    return {
        "auc": auc(scores, labels),
        "auc_ci95": list(auc_ci(scores, labels, users, seed=seed)),
        "uauc": float(own.mean()) if own.size else None,
        "uauc_ci95": list(bootstrap_ci(own, seed=seed)) if own.size else None,
        "uauc_users": int(own.size),
        **decision(scores, labels, threshold),
        "cases": len(np.asarray(labels)),
    }
