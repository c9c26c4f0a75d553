"""How well like/dislike scores tell likes from the rest: AUC and UAUC with intervals over users, and the decision.

AUC is one ROC over all rows; UAUC the unweighted mean of the AUCs of users who have both labels. numpy only.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.accuracy import auc, user_aucs
from benchmarks.intervals import Interval, bootstrap_ci

RESAMPLES = 2000
_CHUNK = 4_000_000  # row weights held at once (32 MB)

Metrics = dict[str, float | int | list[float] | None]


def bootstrap_aucs(
    scores: ArrayLike, labels: ArrayLike, users: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """AUC over the rows of users drawn with replacement -> float64 (resamples,), NaN where a draw has one class only.

    `scores`, `labels`, `users`: (rows,).
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


def user_values(scores: ArrayLike, labels: ArrayLike, users: ArrayLike) -> NDArray[np.float64]:
    """One value per user, in order of user id, whose mean is the AUC over all rows and whose spread is its uncertainty.

    The AUC plus each user's influence on it, which is what a bootstrap over users sees to first order (B. Efron, The
    Jackknife, the Bootstrap and Other Resampling Plans, 1982, chapter 6: the infinitesimal jackknife). So AUCs are
    compared as any mean over users is. Raises ValueError with one class only.
    """
    values, liked = np.asarray(scores, np.float64), np.asarray(labels, bool)
    area = auc(values, liked)
    if area is None:
        raise ValueError("an AUC needs likes and dislikes")
    _, owner = np.unique(np.asarray(users), return_inverse=True)
    n_users, positives, negatives = int(owner.max()) + 1, int(liked.sum()), int((~liked).sum())
    _, group = np.unique(values, return_inverse=True)
    up, down = (np.bincount(group[mask], minlength=int(group.max()) + 1) for mask in (liked, ~liked))
    # wins of a like over all dislikes, and of all likes over a dislike; a tie counts one half
    won = np.where(liked, (np.cumsum(down) - down / 2)[group], (up.sum() - np.cumsum(up) + up / 2)[group])
    share = np.where(liked, area / positives, area / negatives)
    influence = np.bincount(owner, won / (positives * negatives) - share, minlength=n_users) * n_users
    return np.asarray(area + influence, np.float64)


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
