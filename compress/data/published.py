"""Like/dislike rows of a published split: each asks about one item and carries the history before it.

A data set is a folder with `NAME.train.inter`, `NAME.valid.inter` and `NAME.test.inter` (RecBole atomic files with the
columns user_id, item_id, rating, item_id_list, rating_list and, where rows have an order, timestamp) and `NAME.item`.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compress.likes.rows import SPLITS, Rows, Split
from deploy.columns import Columns, Problems, read_columns
from deploy.errors import UsageError

HISTORY, RATINGS = "item_id_list", "rating_list"
MAX_HISTORY = 10_000
_ROLES = {"user": "user_id", "item": "item_id", "rating": "rating", "time": "timestamp"}


@dataclass(frozen=True)
class PublishedFiles:
    """The files of a published split; a data set may have no training rows of its own."""

    rows: Mapping[Split, Path]
    items: Path

    def digest(self) -> str:
        """SHA-256 of all their contents."""
        found = hashlib.sha256()
        for path in (*self.rows.values(), self.items):
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()


def find_published(folder: Path) -> PublishedFiles:
    """Raises UsageError where validation rows, test rows or items are missing, or several data sets lie there."""
    names = sorted(path.name.removesuffix(".test.inter") for path in folder.glob("*.test.inter"))
    name = folder.name if folder.name in names else names[0] if len(names) == 1 else None
    if name is None:
        raise UsageError(
            f"{folder}: a published split is NAME.train.inter, NAME.valid.inter, NAME.test.inter and NAME.item of one "
            f"data set (got {', '.join(f'{n}.test.inter' for n in names[:5]) or 'no .test.inter'})"
        )
    rows = {split: folder / f"{name}.{split}.inter" for split in SPLITS}
    items = folder / f"{name}.item"
    if missing := [path.name for path in (rows["valid"], items) if not path.is_file()]:
        raise UsageError(f"{folder}: {' and '.join(missing)} missing beside {name}.test.inter")
    return PublishedFiles({split: path for split, path in rows.items() if path.is_file()}, items)


def read_rows(
    paths: Mapping[Split, Path],
    item_ids: Sequence[str],
    columns: Mapping[str, str],
    liked_from: float | None,
) -> tuple[list[str], dict[Split, Rows]]:
    """(user ids in order of first appearance, rows by split, each in the order of its file).

    `columns` maps the roles user, item, rating and time to column names. A rating of at least `liked_from` is a like;
    without it ratings are labels, 0 or 1. Raises UsageError with the first five mistakes of each kind and their count.
    """
    row_of = {item: row for row, item in enumerate(item_ids, start=1)}
    user_of: dict[str, int] = {}
    parts = {
        split: _read(path, row_of, user_of, {**_ROLES, **columns}, "time" in columns, liked_from)
        for split, path in paths.items()
    }
    return list(user_of), parts


def _read(
    path: Path,
    row_of: Mapping[str, int],
    user_of: dict[str, int],
    names: Mapping[str, str],
    needs_time: bool,
    liked_from: float | None,
) -> Rows:
    table = read_columns(path)
    cells = _Cells(table, Problems(path), row_of, liked_from)
    users = table.need(names["user"], "the user of each row")
    timed = needs_time or names["time"] in table.values
    ratings = [[cell] for cell in table.need(names["rating"], "the label of each row")]
    asked = [[cell] for cell in table.need(names["item"], "the item that each row asks about")]
    histories = [cell.split() for cell in table.need(HISTORY, "the items of each row's history, oldest first")]
    likes = [cell.split() for cell in table.need(RATINGS, "what the user gave each item of the history")]
    for row, user in enumerate(users):
        if not user:
            cells.problem("empty id", row, names["user"], "an id may not be empty (got '')")
        user_of.setdefault(user, len(user_of))
    found = Rows(
        users=np.array([user_of[user] for user in users], np.int32),
        items=cells.items(asked, names["item"]),
        labels=cells.labels(ratings, names["rating"]),
        times=cells.times(table.need(names["time"], "when it was rated"), names["time"]) if timed else None,
        offsets=cells.offsets(histories, likes),
        history=cells.items(histories, HISTORY),
        history_likes=cells.labels(likes, RATINGS),
    )
    cells.problems.check()
    return found


@dataclass(frozen=True)
class _Cells:
    """Cells of one table as checked numbers; what is wrong is noted with its place."""

    table: Columns
    problems: Problems
    row_of: Mapping[str, int]
    liked_from: float | None

    def problem(self, kind: str, row: int, column: str, what: str) -> None:
        self.problems.add(kind, self.table.where(row, column), what)

    def items(self, lists: Sequence[Sequence[str]], column: str) -> NDArray[np.int32]:
        flat = list(chain.from_iterable(lists))
        rows = np.fromiter(map(self.row_of.get, flat, repeat(0)), np.int32, len(flat))
        for at, row in _places(rows == 0, lists):
            what = f"unknown item; add it to the item file or drop the row (got {flat[at][:60]!r})"
            self.problem(f"unknown item in {column}", row, column, what)
        return rows

    def labels(self, lists: Sequence[Sequence[str]], column: str) -> NDArray[np.bool_]:
        flat = list(chain.from_iterable(lists))
        known = {cell: self.label(cell) for cell in set(flat)}
        wrong = {cell for cell, like in known.items() if isinstance(like, str)}
        for at, row in _places(np.fromiter((cell in wrong for cell in flat), bool, len(flat)), lists):
            self.problem(f"rating in {column}", row, column, str(known[flat[at]]))
        liked = {cell for cell, like in known.items() if like is True}
        return np.fromiter((cell in liked for cell in flat), bool, len(flat))

    def label(self, cell: str) -> bool | str:
        """Whether a rating is a like, or what is wrong with it."""
        value = _number(cell)
        if value is None:
            return f"a rating is a finite number (got {cell[:60]!r})"
        if self.liked_from is None and value not in (0.0, 1.0):
            return f"a label is 0 or 1; for ratings set split.liked_from (got {cell[:60]!r})"
        return value >= (1.0 if self.liked_from is None else self.liked_from)

    def times(self, values: Sequence[str], column: str) -> NDArray[np.float64]:
        for row, cell in enumerate(values):
            if _number(cell) is None:
                self.problem("time", row, column, f"a time is a finite number of seconds (got {cell[:60]!r})")
        return np.array([_number(cell) or 0.0 for cell in values], np.float64)

    def offsets(self, histories: Sequence[Sequence[str]], likes: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        for row, (items, values) in enumerate(zip(histories, likes, strict=True)):
            if len(items) != len(values):
                what = f"as many ratings as items in {HISTORY} are needed, {len(items)} (got {len(values)})"
                self.problem("lengths", row, RATINGS, what)
            if len(items) > MAX_HISTORY:
                self.problem("long history", row, HISTORY, f"at most {MAX_HISTORY} items (got {len(items)})")
        return np.concatenate([[0], np.cumsum([len(items) for items in histories])]).astype(np.int64)


def _places(wrong: NDArray[np.bool_], lists: Sequence[Sequence[str]]) -> Iterator[tuple[int, int]]:
    """(index among all cells, index of the list) of every cell that is `wrong`."""
    at = np.flatnonzero(wrong)
    ends = np.cumsum([len(values) for values in lists])
    return zip(at.tolist(), np.searchsorted(ends, at, side="right").tolist(), strict=True)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def draw_shots(
    parts: Mapping[Split, Rows], shots: int, seed: int
) -> tuple[dict[Split, Rows], Literal["train", "valid"]]:
    """Keep `shots` rows to train on, drawn as TALLRec's code draws them (`shuffle(seed)`, then the first rows).

    A data set without training rows gives them from its validation rows, which then no longer validate. Also returns
    where they came from. Raises UsageError where there are not as many rows.
    """
    pool: Literal["train", "valid"] = "train" if "train" in parts else "valid"
    n = len(parts[pool])
    if shots >= n + (pool == "train"):
        raise UsageError(f"data.split.shots: fewer than the {n} rows of {pool} are needed (got {shots})")
    order = np.random.default_rng(seed).permutation(n)
    rest = parts["valid"] if pool == "train" else parts["valid"].take(np.sort(order[shots:]))
    return {"train": parts[pool].take(order[:shots]), "valid": rest, "test": parts["test"]}, pool
