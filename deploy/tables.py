"""Interactions and items from a team's own files: found, read, checked and sorted. Torch-free.

A data set is a folder `NAME/` with `NAME.inter` and `NAME.item` (or the only `.inter` and `.item` there, parts of a
published split such as `NAME.train.inter` aside), or with `interactions.csv` and `items.csv` (or `.parquet`); or the
path of its interactions file, with the items beside it.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.columns import Columns, Problems, read_columns, write_atomic
from deploy.errors import UsageError

TITLE_COLUMNS = ("title", "movie_title", "name")
ROLES = {"user": "user_id", "item": "item_id", "rating": "rating", "time": "timestamp", "title": ""}
"""What `columns:` may map, with the default column names (a title is looked for in `TITLE_COLUMNS`)."""

_BREAKS = frozenset("\t\n\r")


@dataclass(frozen=True)
class TableFiles:
    """Where a data set's tables lie; `items` is None where there is no item file."""

    interactions: Path
    items: Path | None


@dataclass(frozen=True)
class Interactions:
    """Events sorted by user (in order of first appearance), then time; ties keep the order of the file.

    `users`, `items`: distinct ids in order of first appearance. `offsets` int64 (users + 1): user u's events are
    `offsets[u]:offsets[u + 1]`. `item_index` int32 (events): index into `items`. `times` float64 (events), the place
    in the file where the file has no time (`timed` is then False). `ratings` float64 (events) or None.
    """

    users: list[str]
    items: list[str]
    offsets: NDArray[np.int64]
    item_index: NDArray[np.int32]
    times: NDArray[np.float64]
    ratings: NDArray[np.float64] | None
    timed: bool

    def __len__(self) -> int:
        return len(self.item_index)


@dataclass(frozen=True)
class Items:
    """The catalogue in file order. `attributes` holds every other column as text; `titles` are ids where no title is.

    `title_column` is the title's name in the file, None where the file has no title. `sequences` names the attributes
    that the file's own types say hold several values.
    """

    ids: list[str]
    titles: list[str]
    attributes: dict[str, list[str]]
    title_column: str | None
    sequences: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.ids)


def find_tables(path: Path) -> TableFiles:
    """The tables of the data set at `path` (a folder or an interactions file). Raises UsageError."""
    if path.is_file():
        return TableFiles(path, _items_beside(path))
    if not path.is_dir():
        raise UsageError(f"{path}: no such file or folder; give a folder with .inter and .item or CSV or Parquet files")
    interactions = _only(path, ".inter")
    if interactions is None:
        named = [path / f"interactions{suffix}" for suffix in (".csv", ".parquet")]
        interactions = next((file for file in named if file.is_file()), None)
    if interactions is None:
        present = ", ".join(sorted(file.name for file in path.iterdir())[:10]) or "nothing"
        raise UsageError(f"{path}: no .inter file and no interactions.csv or interactions.parquet (got {present})")
    return TableFiles(interactions, _items_beside(interactions))


def read_interactions(
    path: Path, columns: Mapping[str, str] | None = None, known_items: Container[str] | None = None
) -> Interactions:
    """The events of an interactions file. `columns` maps roles of `ROLES` to column names.

    Without a time column the order in the file is the order of events. With `known_items`, an event of another item
    is a mistake. Raises UsageError with the first five mistakes of each kind and their count.
    """
    names = _names(columns)
    table = read_columns(path)
    users = table.need(names["user"], "the user of each event")
    items = table.need(names["item"], "the item of each event")
    timed = _present(table, "time", names, columns)
    rated = _present(table, "rating", names, columns)
    problems = Problems(path)
    _check_ids(problems, table, names["user"])
    _check_ids(problems, table, names["item"])
    if known_items is not None:
        for row, item in enumerate(items):
            if item and item not in known_items:
                what = f"unknown item; add it to the item file or drop the row (got {item[:60]!r})"
                problems.add("unknown item", table.where(row, names["item"]), what)
    order = np.arange(len(users), dtype=np.float64)
    times = _numbers(problems, table, names["time"], "a time is a finite number of seconds") if timed else order
    ratings = _numbers(problems, table, names["rating"], "a rating is a finite number") if rated else None
    problems.check()
    user_ids, user_index = _index(users)
    item_ids, item_index = _index(items)
    by_user = np.lexsort((times, user_index))
    counts = np.bincount(user_index, minlength=len(user_ids))
    return Interactions(
        users=user_ids,
        items=item_ids,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        item_index=item_index[by_user],
        times=times[by_user],
        ratings=None if ratings is None else ratings[by_user],
        timed=timed,
    )


def read_items(path: Path, columns: Mapping[str, str] | None = None, list_separator: str = " ") -> Items:
    """The catalogue of an item file. `columns` maps the roles `item` and `title`. Raises UsageError."""
    names = _names(columns)
    table = read_columns(path, list_separator)
    ids = table.need(names["item"], "the item of each row")
    if names["title"]:
        table.need(names["title"], "the title of each item")
    title_column = names["title"] or next((name for name in TITLE_COLUMNS if name in table.values), None)
    problems = Problems(path)
    _check_ids(problems, table, names["item"])
    first: dict[str, int] = {}
    for row, item in enumerate(ids):
        if item and first.setdefault(item, row) != row:
            what = f"duplicate item id, first in {table.unit} {table.lines[first[item]]} (got {item[:60]!r})"
            problems.add("duplicate item id", table.where(row, names["item"]), what)
    problems.check()
    used = {names["item"], title_column}
    attributes = {name: cells for name, cells in table.values.items() if name not in used}
    titles = table.values[title_column] if title_column else ids
    return Items(ids, list(titles), attributes, title_column, table.sequences & set(attributes))


def write_items(path: Path, ids: Sequence[str], titles: Sequence[str], attributes: Mapping[str, Sequence[str]]) -> None:
    """Writes an atomic item file (`item_id:token`, `title:token_seq`, the attributes) that `read_items` reads back."""
    clash = {"item_id", "title"} & set(attributes)
    if clash:
        raise ValueError(f"attributes may not be called {sorted(clash)}")
    write_atomic(path, {"item_id": ids, "title": titles, **attributes}, {"item_id": "token"})


def _names(columns: Mapping[str, str] | None) -> dict[str, str]:
    unknown = set(columns or ()) - set(ROLES)
    if unknown:
        raise UsageError(f"columns: maps {', '.join(ROLES)} only (got {', '.join(sorted(unknown))})")
    return {**ROLES, **(columns or {})}


def _present(table: Columns, role: str, names: Mapping[str, str], columns: Mapping[str, str] | None) -> bool:
    # An optional column that the user named must be there; the default name may be absent.
    if role in (columns or {}):
        table.need(names[role], f"the {role} of each event")
    return names[role] in table.values


def _check_ids(problems: Problems, table: Columns, name: str) -> None:
    for row, cell in enumerate(table.values[name]):
        if not cell:
            problems.add("empty id", table.where(row, name), "an id may not be empty (got '')")
        elif not _BREAKS.isdisjoint(cell):
            what = f"an id has no tabs or newlines (got {cell[:60]!r})"
            problems.add("broken id", table.where(row, name), what)


def _numbers(problems: Problems, table: Columns, name: str, rule: str) -> NDArray[np.float64]:
    values = np.empty(len(table.lines), dtype=np.float64)
    for row, cell in enumerate(table.values[name]):
        try:
            values[row] = float(cell)
        except ValueError:
            values[row] = np.nan
        if not np.isfinite(values[row]):
            problems.add(f"{name} not a number", table.where(row, name), f"{rule} (got {cell[:60]!r})")
    return values


def _index(ids: Sequence[str]) -> tuple[list[str], NDArray[np.int32]]:
    place: dict[str, int] = {}
    index = np.fromiter((place.setdefault(name, len(place)) for name in ids), dtype=np.int32, count=len(ids))
    return list(place), index


def _only(folder: Path, suffix: str) -> Path | None:
    named = folder / f"{folder.name}{suffix}"
    if named.is_file():
        return named
    files = sorted(folder.glob(f"*{suffix}"))
    # a published split (NAME.train.inter, NAME.valid.inter, NAME.test.inter) lies beside the whole NAME.inter
    files = [file for file in files if not any(file.stem.startswith(f"{whole.stem}.") for whole in files)]
    if len(files) > 1:
        found = ", ".join(file.name for file in files[:5])
        raise UsageError(f"{folder}: several {suffix} files and none is {named.name}; name the file (got {found})")
    return files[0] if files else None


def _items_beside(interactions: Path) -> Path | None:
    if interactions.suffix == ".inter":
        twin = interactions.with_suffix(".item")
        return twin if twin.is_file() else _only(interactions.parent, ".item")
    suffixes = (interactions.suffix, ".csv", ".parquet")
    files = (interactions.parent / f"items{suffix}" for suffix in suffixes)
    return next((file for file in files if file.is_file()), None)
