"""Files of ranked lists with scores: CSV, Parquet or JSON lines, one list a row. Bounded, checked."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.columns import MAX_FILE_BYTES, Problems, check_size, read_columns
from deploy.errors import UsageError

MAX_LIST = 10_000
SUFFIXES = (".csv", ".parquet", ".jsonl")


@dataclass(frozen=True)
class RankedList:
    """`items` best first with their `scores`, for one position of a user, or for the user as such (position None)."""

    where: str
    user: str
    position: int | None
    items: Sequence[str]
    scores: Sequence[float]


def read_lists(path: Path, list_separator: str) -> list[RankedList]:
    """Columns or keys `user_id`, `items`, `scores` and optionally `position`, the user's events before it.

    In CSV the items and scores of a list are separated by `list_separator`. Raises UsageError naming row and column:
    lists and scores differ in length, scores are not finite or rise along the list, an item or a (user, position) is
    there twice.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: lists are {', '.join(SUFFIXES)} (got {path.suffix or path.name!r})")
    problems = Problems(path)
    rows = _json_lines(path, problems) if path.suffix == ".jsonl" else _table(path, list_separator, problems)
    found: list[RankedList] = []
    first: dict[tuple[str, int | None], str] = {}
    for row in rows:
        wrong = _mistake(row)
        if wrong is not None:
            problems.add(wrong[0], f"{row.where}, column {wrong[1]}", wrong[2])
            continue
        if (before := first.setdefault((row.user, row.position), row.where)) != row.where:
            what = f"the list of this user and position is in {before} already (got {row.user[:60]!r}, {row.position})"
            problems.add("duplicate list", f"{row.where}, column user_id", what)
        found.append(row)
    problems.check()
    if not found:
        raise UsageError(f"{path}: no lists in the file (got 0 rows)")
    return found


def _mistake(row: RankedList) -> tuple[str, str, str] | None:
    """(kind, column, what is wrong) of a list, None where nothing is."""
    if not row.user:
        return "empty id", "user_id", "a user is needed (got '')"
    if not 1 <= len(row.items) <= MAX_LIST:
        return "length", "items", f"1 to {MAX_LIST} items (got {len(row.items)})"
    if len(row.scores) != len(row.items):
        return "length", "scores", f"one score per item, {len(row.items)} (got {len(row.scores)})"
    if len(set(row.items)) < len(row.items):
        twice = next(item for place, item in enumerate(row.items) if item in row.items[:place])
        return "duplicate item", "items", f"an item stands once in a list (got {twice[:60]!r} twice)"
    for place, score in enumerate(row.scores):
        if not math.isfinite(score):
            return "not finite", "scores", f"a score is finite (got {score} at place {place + 1})"
        if place and score > row.scores[place - 1]:
            what = (
                f"scores fall along the list, best first; negate distances (got {score} after {row.scores[place - 1]})"
            )
            return "rising scores", "scores", what
    return None


def _table(path: Path, separator: str, problems: Problems) -> Iterator[RankedList]:
    table = read_columns(path, separator)
    users, items = table.need("user_id", "whose list it is"), table.need("items", "ranked item ids")
    scores = table.need("scores", "the teacher's scores of the items")
    positions = table.values.get("position", [""] * len(users))
    for row, (user, cell, numbers, position) in enumerate(zip(users, items, scores, positions, strict=True)):
        where = f"{table.unit} {table.lines[row]}"
        try:
            values = [float(number) for number in _parts(numbers, separator)]
        except ValueError as error:
            problems.add("not a number", f"{where}, column scores", f"scores are numbers ({str(error)[:100]})")
            continue
        place = _position(position) if position else None
        if place == -1:
            problems.add("position", f"{where}, column position", f"a whole number from 0 (got {position[:60]!r})")
            continue
        yield RankedList(where, user, place, _parts(cell, separator), values)


def _parts(cell: str, separator: str) -> list[str]:
    return [part.strip() for part in cell.split(separator)] if cell.strip() else []


def _position(text: str) -> int:
    """-1 where it is none. Parquet writes a column with holes as floats."""
    whole = text.removesuffix(".0")
    return int(whole) if whole.isascii() and whole.isdigit() and len(whole) < 10 else -1


def _json_lines(path: Path, problems: Problems) -> Iterator[RankedList]:
    check_size(path, MAX_FILE_BYTES)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"line {number}"
            try:
                found = _from_json(where, json.loads(line))
            except (ValueError, RecursionError, TypeError) as error:
                problems.add("form", where, f"not a list of this form: {str(error)[:120]}")
            else:
                yield found


def _from_json(where: str, row: object) -> RankedList:
    """Raises ValueError saying which key is wrong."""
    if not isinstance(row, dict) or not {"user_id", "items", "scores"} <= set(row):
        raise ValueError('{"user_id", "items", "scores", "position" (optional)} expected')
    user, items, scores, position = row["user_id"], row["items"], row["scores"], row.get("position")
    if not (isinstance(items, list) and all(isinstance(item, str | int) for item in items)):
        raise ValueError("items: a list of ids expected")
    if not (isinstance(scores, list) and all(type(score) in (int, float) for score in scores)):
        raise ValueError("scores: a list of numbers expected")
    if not isinstance(user, str | int):
        raise ValueError(f"user_id: an id expected (got {str(user)[:40]!r})")
    if position is not None and not (type(position) is int and 0 <= position < 10**9):
        raise ValueError(f"position: a whole number from 0 expected (got {str(position)[:40]!r})")
    try:
        values = [float(score) for score in scores]
    except OverflowError:
        raise ValueError("scores: numbers that a float can hold expected") from None
    return RankedList(where, str(user), position, [str(item) for item in items], values)
