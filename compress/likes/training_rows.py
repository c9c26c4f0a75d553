"""What a like/dislike model trains on: the training rows, and what their histories say beyond them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from compress.likes.rows import LikeData, Rows


def training_rows(data: LikeData) -> Rows:
    """The training rows, then one row for each labelled history item that is not itself asked about.

    With an order a history item's own history is what came before it; without one it is the rest of the row, the item
    asked about included. A user's item is asked about once: where histories overlap, in the first row that has it.
    Where all history items are earlier rows of their user, as in CoLLM's data, nothing is added.
    """
    rows = data["train"]
    asked = set(zip(rows.users.tolist(), rows.items.tolist(), strict=True))
    added = list(_history_rows(rows, data.ordered, asked))
    if not added:
        return rows
    histories = [(items, likes) for _, _, _, items, likes in added]
    index = np.array([i for i, *_ in added], np.int64)
    return Rows(
        np.concatenate([rows.users, rows.users[index]]),
        np.concatenate([rows.items, np.array([item for _, item, *_ in added], np.int32)]),
        np.concatenate([rows.labels, np.array([like for _, _, like, *_ in added], bool)]),
        None if rows.times is None else np.concatenate([rows.times, rows.times[index]]),
        np.concatenate([rows.offsets, rows.offsets[-1] + np.cumsum([len(items) for items, _ in histories])]),
        np.concatenate([rows.history, *(items for items, _ in histories)]),
        np.concatenate([rows.history_likes, *(likes for _, likes in histories)]),
    )


def _history_rows(
    rows: Rows, ordered: bool, asked: set[tuple[int, int]]
) -> Iterator[tuple[int, int, bool, NDArray[np.int32], NDArray[np.bool_]]]:
    """(row, item, label, history, its likes) of every history item that `asked` does not have yet."""
    for i, user in enumerate(rows.users.tolist()):
        part = slice(rows.offsets[i], rows.offsets[i + 1])
        items, likes = rows.history[part], rows.history_likes[part]
        for place, item in enumerate(items.tolist()):
            if (user, item) in asked:
                continue
            asked.add((user, item))
            if ordered:
                yield i, item, bool(likes[place]), items[:place], likes[:place]
            else:
                others = np.delete(items, place), np.delete(likes, place)
                history = np.append(others[0], rows.items[i]), np.append(others[1], rows.labels[i])
                yield i, item, bool(likes[place]), *history
