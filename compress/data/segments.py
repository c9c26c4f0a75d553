"""Segments of cases where a small model may break unseen: tail items and short histories."""

import numpy as np
from numpy.typing import NDArray

SHORT_HISTORY = 5
TAIL_SHARE = 0.2


def tail_items(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The least popular items that together hold at most the last 20 % of training interactions. bool (n + 1,).

    `counts` int64 (n + 1): training interactions per row, row 0 padding. Of equally popular items the later row is
    the less popular one. An item without training interactions is a tail item.
    """
    order = np.argsort(-counts[1:], kind="stable")[::-1] + 1
    held = np.cumsum(counts[order])
    tail = np.zeros(len(counts), dtype=bool)
    # the sums are whole numbers: no rounding decides who is in
    tail[order[held <= int(TAIL_SHARE * 100) * int(counts[1:].sum()) // 100]] = True
    return tail


def short_histories(lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Cases with at most 5 events of history. bool (cases,)."""
    return lengths <= SHORT_HISTORY
