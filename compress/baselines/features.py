"""Plain features of like/dislike rows: counts, means, and how the item asked about compares with the history.

What is known of items and users comes from training rows alone. A training row sees those before it, in time or else in
a random order, so that no feature holds its own label (ordered target statistics: Prokhorenkova et al., "CatBoost",
2018, section 3.2).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset import Dataset
from compress.likes.rows import LikeData, Rows, Split
from compress.likes.training_rows import training_rows

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SMOOTHING = 5.0
"""Imagined rows of the average label that every mean starts from."""


class LabelCounts:
    """Labels of training rows by a key (their item or user), as a row at a place in the training order sees them."""

    def __init__(self, keys: NDArray[np.int32], labels: NDArray[np.bool_], places: NDArray[np.int64]) -> None:
        """`places` (rows,) int64: each row's place in the order."""
        self.prior = float(labels.mean())
        by_key = np.lexsort((places, keys))
        self._stride = len(keys) + 1
        self._sorted = keys[by_key].astype(np.int64) * self._stride + places[by_key]
        self._sums = np.concatenate([[0.0], np.cumsum(labels[by_key])])

    def __call__(
        self, keys: NDArray[np.int32], before: NDArray[np.int64] | None = None, smoothing: float = SMOOTHING
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(mean label with `smoothing` imagined rows of the average, count) of each key, float64; with `before` from
        rows at earlier places alone."""
        likes, counts = self.known(keys, before)
        return (likes + smoothing * self.prior) / (counts + smoothing), counts

    def known(
        self, keys: NDArray[np.int32], before: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(likes, rows) of each key, float64; with `before` of rows at earlier places alone."""
        wanted = keys.astype(np.int64) * self._stride
        first = np.searchsorted(self._sorted, wanted)
        last = np.searchsorted(self._sorted, wanted + (self._stride - 1 if before is None else before))
        return self._sums[last] - self._sums[first], (last - first).astype(np.float64)


def training_places(rows: Rows, seed: int) -> NDArray[np.int64]:
    """The place of each training row in the order of time, int64 (rows,); without times in a random one."""
    if rows.times is None:
        return np.random.default_rng(seed).permutation(len(rows))
    return np.argsort(np.argsort(rows.times, kind="stable"), kind="stable")


def row_features(
    data: LikeData, catalogue: Dataset, seed: int
) -> tuple[Mapping[Split, NDArray[np.float64]], list[str]]:
    """Features float64 (rows, features) by split, NaN where there is nothing to look at, and their names.

    `train` has the rows of `training_rows`; what does not vary there is left out.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    train = training_rows(data)
    places = training_places(train, seed)
    items, users = (LabelCounts(keys, train.labels, places) for keys in (train.items, train.users))
    texts = TfidfVectorizer(sublinear_tf=True).fit_transform(["", *catalogue.texts])
    numbers = numeric_attributes(catalogue)
    parts: dict[Split, Rows] = {**data.parts, "train": train}
    found: dict[Split, NDArray[np.float64]] = {}
    names: list[str] = []
    for split, rows in parts.items():
        before = places if split == "train" else None
        columns = _known(rows, items, users, before) | _history(rows, items, before)
        columns |= _text(rows, texts) | _numbers(rows, numbers)
        found[split], names = np.stack(list(columns.values()), axis=1), list(columns)
    varies = np.array([len(np.unique(column[np.isfinite(column)])) > 1 for column in found["train"].T], bool)
    kept = {split: values[:, varies] for split, values in found.items()}
    return kept, [name for name, keep in zip(names, varies, strict=True) if keep]


def numeric_attributes(catalogue: Dataset) -> dict[str, NDArray[np.float64]]:
    """Item attributes whose filled cells are all numbers (a year, a price): float64 (n_items + 1,), NaN where empty."""
    found = {}
    for name, cells in catalogue.attributes.items():
        try:
            values = np.array([float(cell) if cell else np.nan for cell in cells])
        except ValueError:
            continue
        if np.isfinite(values).any():
            found[name] = np.concatenate([[np.nan], values])
    return found


Columns = dict[str, NDArray[np.float64]]


def _known(rows: Rows, items: LabelCounts, users: LabelCounts, before: NDArray[np.int64] | None) -> Columns:
    """Mean label and count of item and user so far."""
    columns: Columns = {}
    for name, counts, keys in (("item", items, rows.items), ("user", users, rows.users)):
        columns[f"{name}_mean"], columns[f"{name}_count"] = counts(keys, before)
    return columns


def _history(rows: Rows, items: LabelCounts, before: NDArray[np.int64] | None) -> Columns:
    """Length of the history, its share of likes (all, and the newest weighted most), its items' mean labels."""
    likes = rows.history_likes.astype(np.float64)
    age = np.repeat(rows.offsets[1:], rows.lengths) - 1 - np.arange(len(likes))
    recent = 0.9 ** age.astype(np.float64)
    owners = rows.owners()
    score, _ = items(rows.history, None if before is None else before[owners])
    return {
        "history_length": rows.lengths.astype(np.float64),
        "history_liked": _mean_of(likes, rows),
        "history_liked_recently": _ratio(_sum_of(likes * recent, rows), _sum_of(recent, rows)),
        "history_item_mean": _mean_of(score, rows),
    }


def _text(rows: Rows, texts: "csr_matrix") -> Columns:
    """Cosine of the item's words with those of liked and of other history items."""
    owners = rows.owners()
    cosine = np.empty(len(owners))
    for start in range(0, len(owners), 200_000):
        part = slice(start, start + 200_000)
        pairs = texts[rows.items[owners[part]]].multiply(texts[rows.history[part]])
        cosine[part] = np.asarray(pairs.sum(axis=1)).ravel()
    columns: Columns = {}
    for name, mask in (("liked", rows.history_likes), ("other", ~rows.history_likes)):
        count = np.bincount(owners[mask], minlength=len(rows)).astype(np.float64)
        total = np.bincount(owners[mask], cosine[mask], minlength=len(rows)).astype(np.float64)
        best = np.full(len(rows), -1.0)
        np.maximum.at(best, owners[mask], cosine[mask])
        columns[f"text_{name}_mean"] = _ratio(total, count)
        columns[f"text_{name}_best"] = np.where(count > 0, best, np.nan)
    return columns


def _numbers(rows: Rows, numbers: Mapping[str, NDArray[np.float64]]) -> Columns:
    """The item's numeric attributes, and how far they lie above the history's mean."""
    columns: Columns = {}
    for name, values in numbers.items():
        history = values[rows.history]
        known = np.isfinite(history)
        mean = _ratio(_sum_of(np.where(known, history, 0.0), rows), _sum_of(known.astype(np.float64), rows))
        columns |= {name: values[rows.items], f"{name}_above_history": values[rows.items] - mean}
    return columns


def _sum_of(values: NDArray[np.float64], rows: Rows) -> NDArray[np.float64]:
    return np.bincount(rows.owners(), values, minlength=len(rows)).astype(np.float64)


def _mean_of(values: NDArray[np.float64], rows: Rows) -> NDArray[np.float64]:
    return _ratio(_sum_of(values, rows), rows.lengths.astype(np.float64))


def _ratio(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN where nothing was counted."""
    ratios: NDArray[np.float64] = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return ratios
